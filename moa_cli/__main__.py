"""`python -m moa_cli`, and the `moa` command."""

from __future__ import annotations

import gc
import os
import signal
import sys

# The thresholds of the garbage collector, for `gc.set_threshold`. They are higher than Python's,
# because nearly all objects are freed by reference counts. With the default thresholds, collections
# take a twelfth of the start-up time.
_GC_THRESHOLDS = (10_000, 50, 100)


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        # In an ASCII locale with Python's UTF-8 mode switched off, arguments with other letters are
        # decoded wrongly. Only a new start of Python reads them as UTF-8.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    gc.set_threshold(*_GC_THRESHOLDS)
    # Ctrl-C during imports must end the process without a traceback, until `run` sets its own
    # handler. A process that was started with SIGINT ignored, such as a background job, keeps that.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from moa_cli.cli.app import main as run
    from moa_cli.cli.exit_codes import INTERRUPTED

    try:
        code = run()
    except KeyboardInterrupt:
        # Ctrl-C was pressed at the moment when the command ended.
        code = INTERRUPTED
    # Another Ctrl-C during the interpreter's shutdown must not print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


if __name__ == "__main__":
    main()
