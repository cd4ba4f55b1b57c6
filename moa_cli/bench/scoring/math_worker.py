"""The process in which `math_verifier` compares answers. It reads and writes a JSON line for
each."""

from __future__ import annotations

import contextlib
import json
import os
import sys

# The most bytes of memory that the process may take, because an expression may need any amount.
_MOST_MEMORY = 4_000_000_000


def main() -> None:
    """Answer each line of standard input: `[key, reply, stated]` by `[right, answer]`."""
    _limit_memory()
    # Answers go to a copy of standard output, so that prints of the libraries do not mix with them.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import logging

    from math_verify import parse, verify

    logging.disable()
    answers.write("ready\n")
    for line in sys.stdin:
        key, reply, stated = json.loads(line)
        right = False
        found: list[object] = []
        with contextlib.suppress(Exception):
            gold = parse(f"$\\boxed{{{key}}}$")
            for text in (reply, None if stated is None else f"${stated}$"):
                if text is None or right:
                    continue
                read = parse(text)
                found = found or read
                if verify(gold, read):
                    right, found = True, read
        answers.write(json.dumps([right, _text(found)]) + "\n")


def _text(found: list[object]) -> str | None:
    """The answer that was read, as text. math-verify puts its literal text last, if it knows it."""
    try:
        return str(found[-1])[:200] if found else None
    except Exception:
        # SymPy cannot write each value that it can hold, such as numbers of many digits.
        return None


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        # Windows has no such limits.
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


if __name__ == "__main__":
    main()
