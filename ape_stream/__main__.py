"""The program `ape-stream`, which `python -m ape_stream` is as well."""

import signal
import sys


def main() -> int:
    """Run the command line of this process; returns the exit code.

    `cli.main` takes signals over. Until it is imported, Ctrl-C ends the process as it ends any
    other: nothing has begun, and there is nothing to report.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ape_stream.cli.main import main as run  # noqa: PLC0415 (after the signal)

    return run()


if __name__ == "__main__":
    sys.exit(main())
