"""The questions before files are sent: about their size and cost, and about secrets in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.files.attaching import Attached
from moa_cli.core.money import usd
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.profile import Profile

_MOST_NAMED = 5
_MILLION = 1_000_000
# If the highest and the lowest cost differ by less than this factor, only the highest is shown.
_ALIKE = 1.2


def size_text(tokens: int, profile: Profile, known: Mapping[str, ModelInfo]) -> str:
    """The size of files, and the cost for the mixture to read them, such as `about 12 M tokens,
    about $11 a proposer`. It names a model whose context is too small. known: facts about models,
    by name."""
    proposers = [proposer.model for proposer in profile.layer(1)] if profile.rounds else []
    readers = proposers or [profile.aggregator.model]
    text = f"about {_rounded(tokens)} tokens"
    prices = [info.price for model in readers if (info := known.get(model)) is not None]
    usage = Usage(prompt_tokens=tokens, calls=1)
    costs = sorted(price.of(usage) for price in prices if price is not None)
    if costs:
        alike = costs[-1] <= costs[0] * _ALIKE
        amount = usd(costs[-1]) if alike else f"{usd(costs[0])} to {usd(costs[-1])}"
        text += f", about {amount}{' a proposer' if proposers else ''}"
        if len(costs) < len(readers):
            text += " (of some, the price is unknown)"
    elif proposers:
        text += f", to {plural(len(proposers), 'proposer')}; the price is unknown"
    small = {
        model: info.context_length
        for model in profile.models()
        if (info := known.get(model)) is not None
        and info.context_length is not None
        and info.context_length < tokens
    }
    if small:
        least = min(small, key=lambda model: small[model])
        more = f" and {plural(len(small) - 1, 'other')}" if len(small) > 1 else ""
        text += f"; {one_line(least)}{more} cannot read so much ({small[least]:,} tokens)"
    return text


def secrets_text(files: Sequence[Attached]) -> str:
    """A text on files that seem to hold secrets: `.env seems to hold settings with keys`."""
    shown = [
        f"{one_line(file.name, 60)} seems to hold {file.secret}" for file in files[:_MOST_NAMED]
    ]
    if len(files) > _MOST_NAMED:
        shown.append(f"{plural(len(files) - _MOST_NAMED, 'other file')}, too")
    return ", ".join(shown)


def secrets_question(files: Sequence[Attached]) -> str:
    """The question whether to send files that seem to hold secrets."""
    which = "it" if len(files) == 1 else "them"
    return f"{secrets_text(files)}: send {which} to the models?"


def _rounded(tokens: int) -> str:
    if tokens >= 10 * _MILLION:
        return f"{tokens / _MILLION:.0f} M"
    if tokens >= _MILLION:
        return f"{tokens / _MILLION:.1f} M"
    return f"{round(tokens, -3) if tokens >= 10_000 else tokens:,}"
