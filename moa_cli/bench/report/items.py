"""Lists the items of a run: what was asked, proposed and answered, and what the reply is worth. The
output is lines of JSON, or a page in a single file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from importlib.resources import files
from typing import Literal

from moa_cli.bench.data.epochs import epoch_of, origin_of
from moa_cli.bench.judge.registry import kind_of
from moa_cli.bench.report.values import ValuedRun
from moa_cli.bench.run.folder import JudgeReader
from moa_cli.bench.run.journal import CallAnswer, Result, path_seconds
from moa_cli.bench.scoring.answers import Verdict
from moa_cli.core.money import cost_value, usd
from moa_cli.core.outcomes import cut_text
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import dumps, plural
from moa_cli.documents.web_page import CLOSING, opening

# The outcome of a reply. Judged replies have a value, and are neither right nor wrong.
Outcome = Literal["right", "wrong", "unanswered", "judged", "unjudged", "failed"]


@dataclass(frozen=True)
class ItemAnswer:
    """A proposal or a reply. answer, score: the answer that was parsed in it, and its score, if the
    right answer is known. cut: how it was cut, None if it was not. error: why it failed."""

    model: str
    text: str
    answer: str | None = None
    score: float | None = None
    cut: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ItemVerdict:
    """A judge's verdict on a turn's reply. turn: from 1. value: what the reply is worth, in `unit`.
    text: the judge's answer. unreadable: whether no verdict can be parsed in it. error: why there
    is no answer. shown_first: whether the judge saw the reply before the one it was compared with;
    None if it compared nothing."""

    judge: str
    turn: int
    value: float | None
    unit: str
    text: str
    unreadable: bool
    error: str | None
    shown_first: bool | None = None


@dataclass(frozen=True)
class ItemRow:
    """The result of an arm for an item.

    prompt: the messages of the user. expected: the right answer. layers: the proposals of the last
    turn. reply: the last reply. value: what the reply is worth by a judge, in `unit`. cost: USD;
    None if a price is unknown. seconds: on the critical path. error: why there is no reply.
    verdicts: the verdicts of all judges.
    """

    run: str
    arm: str
    item: str
    category: str | None
    prompt: tuple[str, ...]
    expected: str | None
    layers: tuple[tuple[ItemAnswer, ...], ...]
    reply: ItemAnswer
    outcome: Outcome
    value: float | None
    unit: str
    cost: float | None
    seconds: float
    error: str | None = None
    verdicts: tuple[ItemVerdict, ...] = ()


def rows_of(name: str, valued: ValuedRun, arms: Sequence[str] = ()) -> Iterator[ItemRow]:
    """The rows of a run, item by item, and for each item arm by arm. Raises BenchError if a file is
    damaged.

    name: the name of the run. arms: only these; empty is all.
    """
    run = valued.run
    asked = {item.id: item for item in run.known_items or ()}
    # All epochs of an item have the same place, so that their rows are together.
    places = {item: place for place, item in enumerate(dict.fromkeys(map(origin_of, asked)))}
    wanted = [result for result in run.results if not arms or result.arm in arms]
    order = {arm: place for place, arm in enumerate(run.settings.arms)}
    wanted.sort(
        key=lambda result: (
            places.get(origin_of(result.item), len(places)),
            epoch_of(result.item),
            order.get(result.arm, len(order)),
        )
    )
    # If the right answers are known, they decide the outcome, and a judge's values are left out.
    judged = valued.values.by_arm if valued.values.is_right is None else {}
    named = valued.values.judge
    said = _verdicts(run.judges.values() if named is None else [run.judge(named)])
    for result in wanted:
        item = asked.get(result.item)
        last = result.turns[-1] if result.turns else None
        layers = last.proposals if last else ()
        reply = last.reply if last and last.reply else CallAnswer("", "")
        reply = replace(reply, text=result.replies[-1] if result.replies else "", error=None)
        found = run.verdict(result.item, reply.text) if result.error is None else None
        value = judged.get(result.arm, {}).get((result.item, max(0, len(result.replies) - 1)))
        yield ItemRow(
            run=name,
            arm=result.arm,
            item=result.item,
            category=result.category,
            prompt=item.turns if item else (),
            expected=item.answer if item else None,
            layers=tuple(
                tuple(_answer(answer, run.verdict(result.item, answer.text)) for answer in layer)
                for layer in layers
            ),
            reply=_answer(reply, found),
            outcome=_outcome(result, found, value),
            value=value,
            unit="" if value is None else valued.values.unit,
            cost=cost_value(result.usage),
            seconds=round(path_seconds(result, run.calls), 3),
            error=None if result.error is None else result.error.message,
            verdicts=tuple(said.get(result.name, ())),
        )


def _verdicts(judges: Iterable[JudgeReader]) -> dict[tuple[str, str], list[ItemVerdict]]:
    """The verdicts of all these judges, by arm and item."""
    found: dict[tuple[str, str], list[ItemVerdict]] = {}
    for judge in judges:
        kind = kind_of(judge)
        for verdict in judge.judgements:
            made = ItemVerdict(
                judge=judge.settings.model,
                turn=verdict.turn // kind.games + 1,
                value=kind.worth(verdict),
                unit=kind.unit,
                text=verdict.text,
                unreadable=verdict.unreadable,
                error=None if verdict.error is None else verdict.error.message,
                shown_first=verdict.switched if kind.compares else None,
            )
            found.setdefault((verdict.arm, verdict.item), []).append(made)
    return found


def _outcome(result: Result, found: Verdict | None, value: float | None) -> Outcome:
    if result.error is not None:
        return "failed"
    if found is None:
        return "unjudged" if value is None else "judged"
    if found:
        return "right"
    return "unanswered" if found.answer is None else "wrong"


def _answer(answer: CallAnswer, found: Verdict | None) -> ItemAnswer:
    return ItemAnswer(
        model=answer.model,
        text=answer.text,
        answer=None if found is None else found.answer,
        score=None if found is None or answer.error is not None else found.score,
        cut=cut_text(answer.finish_reason),
        error=None if answer.error is None else answer.error.message,
    )


def json_lines(rows: Iterable[ItemRow]) -> Iterator[str]:
    for row in rows:
        yield dumps(asdict(row)) + "\n"


def page(rows: Sequence[ItemRow]) -> Iterator[str]:
    """The page, piece by piece. Its filters by outcome and arm need no script; its search does."""
    script = files("moa_cli.bench.report").joinpath("items.js").read_text("utf-8")
    yield opening("Items", ("moa_cli.bench.report", "items.css"), script=script)
    counts = Counter[str](row.outcome for row in rows)
    arms = Counter(row.arm for row in rows)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    answers = plural(len(rows), "answer")
    yield f'<header>\n<h1>Items</h1>\n<p class="facts">{answers}: {told}</p>\n'
    yield _choices("outcome", counts)
    if len(arms) > 1:
        yield _choices("arm", arms)
    yield '<p><label>Search <input type="search" autocomplete="off"></label></p>\n</header>\n'
    yield _hiding("outcome", counts) + _hiding("arm", arms)
    for row in rows:
        place = list(arms).index(row.arm)
        yield f'<article data-outcome="{row.outcome}" data-arm="{place}">\n'
        yield from _article(row)
        yield "</article>\n"
    yield f"<script>{script}</script>\n"
    yield CLOSING


def _choices(name: str, counts: Mapping[str, int]) -> str:
    """Radio buttons for one of the values, or all."""
    made = [f'<label><input type="radio" name="{name}" id="{name}-all" checked> all</label>']
    for place, (value, count) in enumerate(counts.items()):
        mark = value if name == "outcome" else str(place)
        made.append(
            f'<label><input type="radio" name="{name}" id="{name}-{mark}">'
            f" {_plain(value)} ({count:,})</label>"
        )
    return f"<fieldset><legend>{name}</legend>\n{''.join(made)}</fieldset>\n"


def _hiding(name: str, counts: Mapping[str, int]) -> str:
    """The style rules that hide what is not chosen. Arms appear in them only as numbers, because
    their names are untrusted text."""
    marks = list(counts) if name == "outcome" else [str(place) for place in range(len(counts))]
    rules = "".join(
        f'main:has(#{name}-{mark}:checked) article:not([data-{name}="{mark}"])'
        " { display: none; }\n"
        for mark in marks
    )
    return f"<style>\n{rules}</style>\n"


def _article(row: ItemRow) -> Iterator[str]:
    names = [row.run, row.arm, f"item {row.item}", row.category or ""]
    yield f"<h2>{_plain(' · '.join(filter(None, names)))}</h2>\n"
    facts = [row.outcome if row.value is None else f"{row.value:.4g} {row.unit}"]
    if row.reply.answer is not None:
        facts.append(f"answer {row.reply.answer}")
    if row.expected is not None:
        facts.append(f"expected {_end(row.expected)}")
    facts.append("cost unknown" if row.cost is None else usd(row.cost))
    facts.append(f"{row.seconds:.1f} s")
    yield f'<p class="facts outcome">{_plain(" · ".join(facts))}</p>\n'
    for prompt in row.prompt:
        yield f'<pre class="prompt">{_text(prompt)}</pre>\n'
    if row.error is not None:
        yield f'<p class="trouble">{_plain(row.error)}</p>\n'
    for number, layer in enumerate(row.layers, 1):
        yield f"<details><summary>round {number}: {plural(len(layer), 'proposal')}</summary>\n"
        for answer in layer:
            yield _answer_html(answer)
        yield "</details>\n"
    if row.error is None:
        yield _answer_html(row.reply)
    yield from map(_verdict_html, row.verdicts)


def _answer_html(answer: ItemAnswer) -> str:
    facts = [answer.model]
    if answer.score is not None:
        mark = "right" if answer.score >= 1 else "wrong" if answer.score <= 0 else answer.score
        facts.append(f"{mark}: {answer.answer}" if answer.answer is not None else "no answer read")
    facts += [text for text in (answer.cut, answer.error) if text]
    head = f'<p class="facts">{_plain(" · ".join(facts))}</p>\n'
    return head + (f"<pre>{_text(answer.text)}</pre>\n" if answer.text else "")


def _verdict_html(verdict: ItemVerdict) -> str:
    told = verdict.error or ("unreadable verdict" if verdict.unreadable else "no verdict")
    if verdict.value is not None:
        told = f"{verdict.value:.4g} {verdict.unit}"
    turn = f", turn {verdict.turn}" if verdict.turn > 1 else ""
    if verdict.shown_first is not None:
        turn += f", shown {'first' if verdict.shown_first else 'second'}"
    words = f"<pre>{_text(verdict.text)}</pre>\n" if verdict.text else ""
    head = _plain(f"judge {verdict.judge}{turn}: {told}")
    return f"<details><summary>{head}</summary>\n{words}</details>\n"


def _end(answer: str) -> str:
    """The end of a worked solution, which is where its answer is."""
    text = one_line(answer)
    return text if len(text) <= 120 else f"…{text[-119:]}"


def _plain(text: str) -> str:
    return escape(one_line(text))


def _text(text: str) -> str:
    return escape(sanitize(text))
