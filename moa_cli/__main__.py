"""`python -m moa_cli`, and the `moa` command."""

from __future__ import annotations

import gc
import os
import signal
import sys

# Objects that are made before the collector looks for cycles, and what its older generations wait
# for: nearly all that a module or a call leaves behind is freed without it. To look as often as
# Python does by default takes a twelfth of a start.
_GC_THRESHOLDS = (10_000, 50, 100)


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        # Python's UTF-8 mode is switched off in a locale without any letters but English ones. The
        # arguments are what was typed all the same; only a new start reads them as UTF-8.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    gc.set_threshold(*_GC_THRESHOLDS)
    # Ctrl-C while modules are imported ends the process, and prints no traceback. `run` takes it
    # over. A process that was started to ignore it, such as a background job, goes on to do so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from moa_cli.cli.app import main as run
    from moa_cli.cli.exit_codes import INTERRUPTED

    try:
        code = run()
    except KeyboardInterrupt:
        # It was pressed in the very moment in which the command ended.
        code = INTERRUPTED
    # All is done: one Ctrl-C too many ends the process, and is no error of the interpreter's end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


if __name__ == "__main__":
    main()
