"""`python -m moa_cli`, and the `moa` command."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from moa_cli.cli.app import main as run

    code = run()
    # All is done: one Ctrl-C too many ends the process, and is no error of the interpreter's end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


if __name__ == "__main__":
    main()
