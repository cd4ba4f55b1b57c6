"""Put the screens of `moa chat` into docs/how-to/chat.md, from a run of the program."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.command import Moa
from tests.support.screens import PAGE, captures, with_screens
from tests.support.upstream import Upstream


def main() -> None:
    """Hold the conversation, and write the page."""
    with tempfile.TemporaryDirectory(prefix="moa-") as home, Upstream() as upstream:
        found = captures(Moa(Path(home), upstream.url), upstream)
    PAGE.write_text(with_screens(PAGE.read_text("utf-8"), found), "utf-8")
    print(f"{PAGE.name}: {', '.join(found)}")


if __name__ == "__main__":
    main()
