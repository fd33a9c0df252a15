"""What all tests need."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves helpers unimportable

# A shell starts its background jobs with SIGINT ignored, and nohup with SIGHUP; children inherit
# that. The tests of signals, and the processes that they start, need Python's own handlers.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
