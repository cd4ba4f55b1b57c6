"""Ask once: the reply, what each proposer answered, and what it cost."""

from __future__ import annotations

import sys

from moa_cli import ask


def main(prompt: str) -> int:
    """Print a turn; returns the exit code."""
    turn = ask(prompt)
    if turn.error is not None:
        print(turn.error.message, file=sys.stderr)
        return 1
    for layer in turn.proposals:
        for proposal in layer:
            print(f"--- {proposal.proposer}, {proposal.seconds:.1f} s\n{proposal.text}\n")
    print(f"=== {turn.profile}\n{turn.reply}")
    print(f"({turn.usage.calls} calls, {turn.usage.total_tokens} tokens, ${turn.usage.cost:.4f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or "Give me three facts about the Moon"))
