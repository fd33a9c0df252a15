"""What all tests need."""

import signal

# A shell starts its background jobs with SIGINT ignored, and children inherit that: the tests of
# signals, and the processes that they start, need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
