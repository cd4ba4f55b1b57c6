"""Whether a reply is more similar to better proposals, and whether mixing is the cause.

As in Mixture-of-Agents (arXiv:2406.04692, section 3.3), each turn gives Spearman's rank correlation
between the reply's similarity to each proposal and what the proposal is worth. The result is the
mean over turns. Good answers are similar to each other, so any good answer correlates, even one
that never saw the proposals. The control is such an answer. The difference to it is what mixing
adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moa_cli.bench.analysis.layers import MixedTurn
from moa_cli.bench.analysis.similarity import Similarity, rank_correlation
from moa_cli.bench.report.values import AnswerValues, Unit
from moa_cli.bench.run.journal import CallAnswer
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.text import plural


@dataclass(frozen=True)
class ControlAnswers:
    """Answers of a model that never saw the proposals. name: the arm, or the author of the answers.
    replies: by unit, which is an item and a turn."""

    name: str
    replies: Mapping[Unit, str]


@dataclass(frozen=True)
class MeanCorrelation:
    """Mean rank correlations over turns, -1 to 1, by one measure of similarity.

    reply: the correlation of the reply. control: the correlation of the control. difference: reply
    minus control, over the same turns and proposals.
    """

    measure: str
    reply: Mean
    control: Mean
    difference: Mean


@dataclass(frozen=True)
class Preference:
    """The correlations, which are empty if it is not known what the proposals are worth.

    control: the name of the control, None without one. notes: which data was used, and what is
    missing.
    """

    rows: tuple[MeanCorrelation, ...]
    control: str | None
    notes: tuple[str, ...]


def preference(
    turns: Sequence[MixedTurn],
    values: AnswerValues,
    similarity: Similarity,
    control: ControlAnswers | None,
) -> Preference:
    """Correlate the reply's similarity to proposals with what these are worth, and do the same for
    the control."""
    if not values.unit:
        return Preference((), None, ("nothing is known of what the proposals are worth",))
    tally = _Tally(values, similarity, control)
    for turn in turns:
        tally.add(turn)
    rows = tuple(
        MeanCorrelation(
            measure,
            _mean(tally.by_reply, measure),
            _mean(tally.by_control, measure),
            _mean(tally.by_difference, measure),
        )
        for measure in (similarity.names if tally.by_reply else ())
    )
    name = None if control is None else control.name
    return Preference(rows, name, tuple(tally.notes(turns)))


# For each turn, its correlation by each measure, and its item.
_Rows = list[tuple[dict[str, float], str]]


def _mean(rows: _Rows, measure: str) -> Mean:
    return grouped_mean((row[measure], item) for row, item in rows if measure in row)


@dataclass
class _Tally:
    """Collects the correlations of turns and counts what was left out.

    own: proposals that were valued themselves. stand_ins: proposals for which the value of another
    answer of their model is used. without_worth: turns with a proposal of unknown value. flat:
    turns whose proposals all have the same value. left_out: proposals that are the control itself.
    """

    values: AnswerValues
    similarity: Similarity
    control: ControlAnswers | None
    own: int = 0
    stand_ins: int = 0
    without_worth: int = 0
    flat: int = 0
    left_out: int = 0
    by_reply: _Rows = field(default_factory=list)
    by_control: _Rows = field(default_factory=list)
    by_difference: _Rows = field(default_factory=list)

    def add(self, turn: MixedTurn) -> None:
        """Add a turn's correlations, if they can be computed."""
        worth = [self._worth(turn.unit, proposal) for proposal in turn.last]
        valued = [
            (proposal, value)
            for proposal, (value, _) in zip(turn.last, worth, strict=True)
            if value is not None
        ]
        if len(valued) < len(worth):
            self.without_worth += 1
            return
        stand_ins = sum(stands_in for _, stands_in in worth)
        self.stand_ins += stand_ins
        self.own += len(worth) - stand_ins
        if len({value for _, value in valued}) < 2:
            self.flat += 1
            return
        if by_reply := self._correlations(turn.reply, valued):
            self.by_reply.append((by_reply, turn.item))
        answer = None if self.control is None else self.control.replies.get(turn.unit)
        if answer is None:
            return
        # A control that is itself one of the proposals is compared with the others only.
        others = [(proposal, value) for proposal, value in valued if proposal.text != answer]
        self.left_out += len(valued) - len(others)
        by_control = self._correlations(answer, others)
        reply = self._correlations(turn.reply, others)
        self.by_control.append((by_control, turn.item))
        difference = {name: reply[name] - by_control[name] for name in by_control if name in reply}
        self.by_difference.append((difference, turn.item))

    def _correlations(
        self, text: str, valued: Sequence[tuple[CallAnswer, float]]
    ) -> dict[str, float]:
        """The rank correlation over these proposals by each measure for which it is defined."""
        alike = [self.similarity.of(text, proposal.text) for proposal, _ in valued]
        worth = [value for _, value in valued]
        found = {
            name: rank_correlation([row[place] for row in alike], worth)
            for place, name in enumerate(self.similarity.names)
        }
        return {name: value for name, value in found.items() if value is not None}

    def _worth(self, unit: Unit, proposal: CallAnswer) -> tuple[float | None, bool]:
        """What a proposal is worth, None if unknown, and whether that is the value of another
        answer of its model."""
        values = self.values
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

    def notes(self, turns: Sequence[MixedTurn]) -> Iterator[str]:
        of_all = f"of {plural(len(turns), 'turn')}"
        if self.without_worth:
            how = "no known answer"
            if self.values.is_right is None:
                how = (
                    "proposals that nobody judged (judge a run with the arm `single`, or --anchors)"
                )
            yield f"left out: {self.without_worth:,} {of_all} with {how}"
        if self.flat:
            yield f"left out: {self.flat:,} {of_all} whose proposals are all worth the same"
        if self.stand_ins:
            yield (
                f"{self.stand_ins:,} of {self.own + self.stand_ins:,} proposals were not judged"
                " themselves: what the same model's answer alone was worth stands in for them"
            )
        if not self.by_reply:
            return
        if self.control is None:
            yield (
                "no control: there is no answer of the aggregator's model alone (--arms single),"
                " and --control names no other; without one the column `reply` proves nothing"
            )
            return
        if self.left_out:
            yield (
                f"the control is itself a proposal {self.left_out:,} times; it is compared with the"
                " others there, and so is the reply in the difference"
            )
        yield (
            f"control: {self.control.name}, which never saw the proposals. Good answers are alike,"
            " so it correlates too (+0.51 by BLEU in one measurement over AlpacaEval); only the"
            " difference can tell that the reply follows the better proposals"
        )
