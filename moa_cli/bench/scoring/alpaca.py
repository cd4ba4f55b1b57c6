"""AlpacaEval 2: makes the requests to the pairwise judge, reads its answers, computes win rates.

Source: alpaca_eval, annotator `weighted_alpaca_eval_gpt4_turbo`. A preference is always 1 if the
reference's output is better, 2 if the model's is, and in between by the judge's probability.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from moa_cli.bench.scoring.judging import JudgeCall, fill, require_places
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.conversation import Message, Role
from moa_cli.core.errors import BenchError

DRAW: Final = 1.5
_FIRST, _SECOND = "m", "M"
_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_MESSAGE = re.compile(r"<\|im_start\|>([^\n]*)\n(.*?)<\|im_end\|>", re.DOTALL)
# `m` or `M` as a word, but not the one of "I'm".
_NAMED = re.compile(r"(?<![\w'’])[mM](?!\w)")
_AROUND = " \t\r\n\"'`*_.,:;()[]{}<>"


@dataclass(frozen=True)
class OutputPair:
    """Two outputs for one instruction. reference: the baseline's output. output: the model's
    output. reversed: whether they are shown in the opposite order to that of alpaca_eval."""

    instruction: str
    reference: str
    output: str
    reversed: bool = False

    @property
    def switched(self) -> bool:
        """Whether the judge is shown the model's output first, as `m`.

        It is drawn at random with the instruction as the seed, exactly as alpaca_eval does.
        """
        coin = random.Random(f"is_switched_outputs{self.instruction}0")  # noqa: S311
        return coin.choices([False, True], k=1)[0] != self.reversed

    @property
    def draw(self) -> bool:
        """Whether the outputs are equal. That is a draw (`DRAW`), and no judge is asked."""
        return self.reference == self.output


@dataclass(frozen=True)
class WinRate:
    """A model's win rate against the reference.

    win_rate: in percent, from the judge's probabilities. discrete_win_rate: in percent, with each
    judgement rounded to a win, a draw or a loss. n_wins, n_wins_base: how many outputs of the model
    and of the reference were judged better. n_missing: how many judgements could not be read; they
    count nowhere else.
    """

    win_rate: Mean
    discrete_win_rate: Mean
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_missing: int


def judge_call(template: str, pair: OutputPair, *, logprobs: bool = True) -> JudgeCall:
    """The request for one judgement. Raises BenchError if the template has another format.

    template: the judge's prompt of alpaca_eval, in chat markup (`<|im_start|>role … <|im_end|>`),
    with the places `{instruction}`, `{output_1}` and `{output_2}`. It is parsed before it is
    filled, so that no output can end its message or begin another. logprobs: False asks for a text
    only, for judges that return no probabilities. Then the temperature is 0, and there is room for
    more than one token.
    """
    outputs = (pair.reference, pair.output)
    first, second = reversed(outputs) if pair.switched else outputs
    values = {"instruction": pair.instruction, "output_1": first, "output_2": second}
    require_places(template, values)
    messages = tuple(Message(role, fill(text, values).strip()) for role, text in _chat(template))
    if not logprobs:
        return JudgeCall(messages, temperature=0.0, max_tokens=16)
    asked = {"logprobs": True, "top_logprobs": 5}
    return JudgeCall(messages, temperature=1.0, max_tokens=1, top_p=1.0, extra=asked)


def _chat(template: str) -> list[tuple[Role, str]]:
    """The messages of the template, before values are filled in."""
    found = _MESSAGE.findall(template)
    if not found or _MESSAGE.sub("", template).strip():
        raise BenchError("the judge's prompt is not in chat markup (<|im_start|>…<|im_end|>)")
    for role, _ in found:
        if role.strip() not in _ROLES:
            raise BenchError(f"the judge's prompt has a message with the unknown role {role!r}")
    return [(_ROLES[role.strip()], text) for role, text in found]


def preference_from_logprobs(
    top_logprobs: Sequence[Mapping[str, Any]], *, switched: bool
) -> float | None:
    """The preference by the probabilities of the answer's first token; None if neither `m` nor `M`
    is among them.

    top_logprobs: `choice.logprobs.content[0].top_logprobs` of the answer. Only the tokens `m` and
    `M` count: the preference is 2 - P(m), with P over those two.
    """
    told: dict[str, float] = {}
    for entry in top_logprobs:
        token, logprob = entry.get("token"), entry.get("logprob")
        is_named = token in (_FIRST, _SECOND)
        if is_named and isinstance(logprob, int | float) and math.isfinite(logprob):
            told[str(token)] = float(logprob)
    if not told:
        return None
    highest = max(told.values())
    weights = {token: math.exp(logprob - highest) for token, logprob in told.items()}
    return _preference(weights.get(_FIRST, 0.0) / math.fsum(weights.values()), switched)


def preference_from_text(text: str, *, switched: bool) -> float | None:
    """The preference that an answer states, for judges without log-probabilities.

    The answer is `m` or `M` if that is the whole answer, or else its last line, or else the only
    one of the two names that occurs in it. None if neither occurs, or both. This is less exact than
    probabilities, so scores that are computed from it are called *discrete*.
    """
    lines = text.strip().splitlines()
    for candidate in (text, lines[-1] if lines else ""):
        name = candidate.strip(_AROUND)
        if name in (_FIRST, _SECOND):
            return _preference(float(name == _FIRST), switched)
    named = set(_NAMED.findall(text))
    return _preference(float(_FIRST in named), switched) if len(named) == 1 else None


def _preference(probability: float, switched: bool) -> float:
    """The preference, 1 to 2. probability: that the output shown first, as `m`, is better."""
    return 1 + probability if switched else 2 - probability


def win_rate(
    preferences: Iterable[float | None], items: Iterable[Hashable] | None = None
) -> WinRate:
    """Win rates and counts as alpaca_eval defines them.

    preferences: from 1 to 2; 0 is an old way to write a draw, and None is a failed judgement.
    items: the item of each preference, if items have several; those of an item are one observation.
    """
    told = list(zip(preferences, count() if items is None else items, strict=False))
    valid = [
        (preference or DRAW, item)
        for preference, item in told
        if preference is not None and (preference == 0 or 1 <= preference <= 2)
    ]
    wins = sum(preference > DRAW for preference, _ in valid)
    losses = sum(preference < DRAW for preference, _ in valid)
    rounded = [
        (50.0 if preference == DRAW else 100.0 * (preference > DRAW), item)
        for preference, item in valid
    ]
    return WinRate(
        win_rate=grouped_mean((100 * (preference - 1), item) for preference, item in valid),
        discrete_win_rate=grouped_mean(rounded),
        n_wins=wins,
        n_wins_base=losses,
        n_draws=len(valid) - wins - losses,
        n_missing=len(told) - len(valid),
    )
