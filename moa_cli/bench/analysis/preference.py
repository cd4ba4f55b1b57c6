"""Whether a reply is more similar to better proposals, and whether that means anything.

As in Mixture-of-Agents (arXiv:2406.04692, section 3.3): in each turn, Spearman's rank correlation
of the reply's similarity to each proposal with what the proposal is worth; then the mean over
turns. Good answers are alike, so any good answer correlates, also one that never saw the
proposals: the control is such an answer, and what mixing adds is the difference to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moa_cli.bench.analysis.similarity import Similarity, rank_correlation
from moa_cli.bench.analysis.turns import MixedTurn, items_of
from moa_cli.bench.report.values import AnswerValues, Unit
from moa_cli.bench.run.records import CallAnswer
from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.core.text import plural


@dataclass(frozen=True)
class ControlAnswers:
    """Answers that never saw the proposals. name: an arm, or whose they are. replies: by turn."""

    name: str
    replies: Mapping[Unit, str]


@dataclass(frozen=True)
class MeanCorrelation:
    """Mean rank correlations over turns, -1 to 1, by one measure of similarity.

    reply: of the reply. control: of the control. difference: reply less control, over the same
    turns and proposals.
    """

    measure: str
    reply: Mean
    control: Mean
    difference: Mean


@dataclass(frozen=True)
class Preference:
    """The correlations, or none of them where nothing is known of the proposals' worth.

    control: its name, None without one. notes: what they are made of, and what is missing.
    """

    rows: tuple[MeanCorrelation, ...]
    control: str | None
    notes: tuple[str, ...]


@dataclass
class _Counts:
    """What the turns had. stand_ins: proposals that are worth what a lone answer was."""

    own: int = 0
    stand_ins: int = 0
    without_worth: int = 0
    flat: int = 0
    left_out: int = 0
    by_reply: list[dict[str, float]] = field(default_factory=list)
    by_control: list[dict[str, float]] = field(default_factory=list)
    by_difference: list[dict[str, float]] = field(default_factory=list)


def preference(
    turns: Sequence[MixedTurn],
    values: AnswerValues,
    similarity: Similarity,
    control: ControlAnswers | None,
) -> Preference:
    """How the reply's similarity to proposals goes with their worth, beside the control's."""
    name = None if control is None else control.name
    if not values.unit:
        return Preference((), None, ("nothing is known of what the proposals are worth",))
    counts = _Counts()
    for turn in turns:
        _add(counts, turn, values, similarity, control)
    items = items_of(turns)
    notes = tuple(_notes(counts, turns, values, control))
    if not any(counts.by_reply):
        return Preference((), name, notes)

    def mean(rows: Sequence[Mapping[str, float]], measure: str) -> Mean:
        told = zip(rows, items, strict=True)
        known = [(row[measure], item) for row, item in told if measure in row]
        return mean_of([value for value, _ in known], groups=[item for _, item in known])

    rows = tuple(
        MeanCorrelation(
            measure,
            mean(counts.by_reply, measure),
            mean(counts.by_control, measure),
            mean(counts.by_difference, measure),
        )
        for measure in similarity.names
    )
    return Preference(rows, name, notes)


def _add(
    counts: _Counts,
    turn: MixedTurn,
    values: AnswerValues,
    similarity: Similarity,
    control: ControlAnswers | None,
) -> None:
    """One turn's correlations; an empty row where there is none."""
    for rows in (counts.by_reply, counts.by_control, counts.by_difference):
        rows.append({})
    worth = [_worth(turn.unit, proposal, values) for proposal in turn.last]
    known = [value for value, _ in worth if value is not None]
    if len(known) < len(worth):
        counts.without_worth += 1
        return
    stand_ins = sum(stands_in for _, stands_in in worth)
    counts.stand_ins += stand_ins
    counts.own += len(worth) - stand_ins
    if len(set(known)) < 2:
        counts.flat += 1
        return
    correlate = _Correlate(turn.last, known, similarity)
    counts.by_reply[-1] = correlate(turn.reply, turn.last)
    answer = None if control is None else control.replies.get(turn.unit)
    if answer is None:
        return
    # Where the control is itself one of the proposals, the others are compared.
    others = [proposal for proposal in turn.last if proposal.text != answer]
    counts.left_out += len(turn.last) - len(others)
    counts.by_control[-1] = correlate(answer, others)
    reply = correlate(turn.reply, others)
    counts.by_difference[-1] = {
        name: reply[name] - value for name, value in counts.by_control[-1].items() if name in reply
    }


@dataclass(frozen=True)
class _Correlate:
    proposals: Sequence[CallAnswer]
    worth: Sequence[float]
    similarity: Similarity

    def __call__(self, text: str, among: Sequence[CallAnswer]) -> dict[str, float]:
        """By measure, the rank correlation over these proposals, where there is one."""
        kept = [
            (proposal, value)
            for proposal, value in zip(self.proposals, self.worth, strict=True)
            if any(proposal is other for other in among)
        ]
        alike = [self.similarity.of(text, proposal.text) for proposal, _ in kept]
        found = {}
        for place, name in enumerate(self.similarity.names):
            told = rank_correlation([row[place] for row in alike], [value for _, value in kept])
            if told.value is not None:
                found[name] = told.value
        return found


def _worth(unit: Unit, proposal: CallAnswer, values: AnswerValues) -> tuple[float | None, bool]:
    """What a proposal is worth, and whether another answer of its model stands in for it."""
    if values.is_right is not None:
        right = values.is_right(unit[0], proposal.text)
        return (None if right is None else 100.0 * right), False
    own = values.by_text.get((unit, proposal.text))
    if own is not None:
        return own, False
    for arm in (f"single:{proposal.model}", proposal.model.replace("given:", "anchor:", 1)):
        found = values.by_arm.get(arm, {}).get(unit)
        if found is not None:
            return found, True
    return None, False


def _notes(
    counts: _Counts,
    turns: Sequence[MixedTurn],
    values: AnswerValues,
    control: ControlAnswers | None,
) -> Iterator[str]:
    told: Callable[[int], str] = lambda number: f"{number:,} of {plural(len(turns), 'turn')}"  # noqa: E731
    if counts.without_worth:
        how = (
            "no known answer"
            if values.is_right is not None
            else "proposals that nobody judged (judge a run with the arm `single`, or --anchors)"
        )
        yield f"left out: {told(counts.without_worth)} with {how}"
    if counts.flat:
        yield f"left out: {told(counts.flat)} whose proposals are all worth the same"
    if counts.stand_ins:
        yield (
            f"{counts.stand_ins:,} of {counts.own + counts.stand_ins:,} proposals were not judged"
            " themselves: what the same model's answer alone was worth stands in for them"
        )
    if not any(counts.by_reply):
        return
    if control is None:
        yield (
            "no control: there is no answer of the aggregator's model alone (--arms single), and"
            " --control names no other; without one the column `reply` proves nothing"
        )
        return
    if counts.left_out:
        yield (
            f"the control is itself a proposal {counts.left_out:,} times; it is compared with the"
            " others there, and so is the reply in the difference"
        )
    yield (
        f"control: {control.name}, which never saw the proposals. Good answers are alike, so it"
        " correlates too (+0.51 by BLEU in one measurement over AlpacaEval); only the difference"
        " can tell that the reply follows the better proposals"
    )
