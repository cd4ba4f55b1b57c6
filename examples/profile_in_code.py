"""Make a mixture in code: two rounds, samples of one model, and a fallback for the aggregator."""

from __future__ import annotations

from moa_cli import Aggregator, Profile, Proposer, ask

MIXTURE = Profile(
    name="from-code",
    rounds=2,
    max_tokens=1000,
    proposers=(
        Proposer(model="openai:gpt-4.1", temperature=0.2),
        Proposer(model="groq:llama-3.3-70b-versatile", samples=2, timeout=60),
    ),
    aggregator=Aggregator(model="openai:gpt-4.1", fallbacks=("groq:llama-3.3-70b-versatile",)),
)

if __name__ == "__main__":
    turn = ask("Why is the sky blue?", profile=MIXTURE)
    print(turn.reply)
    for lost in turn.lost:
        print(f"lost: {lost}")
