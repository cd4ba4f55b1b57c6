"""Slash commands for turns and conversations: show proposals, ask again, take back, rename, tag."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack, closing

from moa_cli.chat.attaching import current_files
from moa_cli.chat.clipboard import copy
from moa_cli.chat.commands.registry import Host, Section, Suggestion, command, model_words, whole
from moa_cli.chat.outcomes import MakeReport, Outcome, Remerge, Resume, Send
from moa_cli.chat.session import Session
from moa_cli.core import paths
from moa_cli.core.conversation import Part, Proposal, Turn
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.files.attachments import prompt_of
from moa_cli.core.jsonl import usage_to_dict
from moa_cli.core.outcomes import cut_of
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.strategy import STRATEGIES, layer_name
from moa_cli.core.text import dumps, plural
from moa_cli.engine.merging import mergeable
from moa_cli.store.stored_values import checked_tag, checked_title
from moa_cli.terminal.after_reply import report_text, source_lines
from moa_cli.terminal.board.screen import terminal_size
from moa_cli.terminal.decision import decision_line, placing_lines
from moa_cli.terminal.table import cell_len, fitted
from moa_cli.terminal.transcript import Passage
from moa_cli.terminal.usage import spent_lines

# The latest conversations, up to this number, are suggested.
_MOST_CONVERSATIONS = 200
# A list shows at least this many cells of the beginning of a proposal.
_LEAST_SHOWN = 20


def _numbers(host: Host, typed: str) -> list[Suggestion]:
    """The proposals of the last layer."""
    proposals = _layer(host.session, None)
    head = typed[: typed.rfind(" ") + 1]
    return [
        Suggestion(f"{head}{number}", f"{proposal.proposer}: {one_line(proposal.text, 60)}")
        for number, proposal in enumerate(proposals, 1)
    ]


def _shown_words(host: Host, typed: str) -> list[Suggestion]:
    return [
        Suggestion("all", "all of the last layer, side by side"),
        Suggestion("reviews", "the models' reviews of them"),
        *_numbers(host, ""),
    ]


def _last(session: Session) -> Turn:
    if session.last is None:
        raise UsageError("there are no turns yet")
    return session.last


def _layer(session: Session, number: int | None) -> tuple[Proposal, ...]:
    """The proposals of a layer of the last turn; None for its last layer."""
    layers = session.last.proposals if session.last else ()
    if number is None:
        return layers[-1] if layers else ()
    if not 1 <= number <= len(layers):
        raise UsageError(f"there is no layer {number}", hint=f"1 to {len(layers)}")
    return layers[number - 1]


def _proposal(session: Session, text: str) -> Proposal:
    """The proposal with the number in `text`, from 1. A second number in `text` is the layer.
    Raises UsageError if there is no such proposal."""
    typed, _, layer = text.partition(" ")
    proposals = _layer(session, whole(layer) if layer else None)
    if not proposals:
        raise UsageError("there are no proposals yet")
    number = whole(typed)
    if not 1 <= number <= len(proposals):
        raise UsageError(f"there is no proposal {number}", hint=f"1 to {len(proposals)}")
    return proposals[number - 1]


@command("show", "[N [LAYER] | all | reviews]", _shown_words, section=Section.PROPOSALS)
def _show(host: Host, argument: str) -> None:
    """List the last turn's proposals, print one in full, all side by side, or the reviews."""
    if not _layer(host.session, None):
        raise UsageError("there are no proposals yet")
    if argument == "reviews":
        _show_reviews(host, _last(host.session))
        return
    if argument == "all":
        from moa_cli.terminal.side_by_side import SideBySide

        as_text = host.options.plain or host.options.accessible
        look = None if as_text else host.options.look
        host.draw(SideBySide(_layer(host.session, None), look))
        return
    if argument:
        proposal = _proposal(host.session, argument)
        host.page(_passages(proposal, f"round {proposal.layer}"))
        return
    columns = terminal_size(sys.stderr)[0]
    for layer_proposals in _last(host.session).proposals:
        for place, proposal in enumerate(layer_proposals, 1):
            cut, text = cut_of(proposal), one_line(proposal.text, 8 * columns)
            name = proposal.proposer + (f" ({cut})" if cut else "")
            line = f"{place}  round {proposal.layer}  {name}: "
            if proposal.error is not None:
                line += proposal.error.message + (": " if text else "")
            host.say(line + fitted(text, max(_LEAST_SHOWN, columns - cell_len(line))))
    reviews = _last(host.session).reviews
    if reviews:
        host.say(f"{plural(len(reviews), 'review')} of them: /show reviews")


def _show_reviews(host: Host, turn: Turn) -> None:
    """Show what models said about the proposals, in full, and the placings of the proposals."""
    if not turn.reviews and turn.decision is None:
        raise UsageError("there are no reviews of the last proposals")
    passages: list[Passage] = []
    for review in turn.reviews:
        passages += _passages(review, layer_name(review.layer, review.purpose))
    if turn.decision is not None:
        told = [decision_line(turn.decision), *placing_lines(turn.decision)]
        passages.append(("note", "\n".join(told)))
    host.page(passages)


def _passages(proposal: Proposal, where: str) -> list[Passage]:
    """A proposal or a review in full. where: the layer that it belongs to."""
    passages: list[Passage] = [("head", f"{proposal.proposer} ({where})")]
    if proposal.text:
        passages.append(("text", proposal.text))
    elif proposal.error:
        passages.append(("note", proposal.error.message))
    if cut := cut_of(proposal):
        passages.append(("note", f"({cut})"))
    return passages + [("note", line) for line in source_lines(proposal.citations)]


def _reasoning_words(host: Host, typed: str) -> list[Suggestion]:
    return [
        Suggestion("on", "show what models think, while they think"),
        Suggestion("off", "do not"),
        *_numbers(host, typed),
    ]


@command("reasoning", "[N [LAYER] | on | off]", _reasoning_words, section=Section.PROPOSALS)
def _reasoning(host: Host, argument: str) -> None:
    """Show what the aggregator, or proposer N, thought before it answered; on: while it thinks."""
    if argument in ("on", "off"):
        host.options.reasoning = argument == "on"
        shown = "shown" if host.options.reasoning else "not shown"
        host.say(f"reasoning is {shown} while models think")
        return
    turn = _last(host.session)
    if argument:
        proposal = _proposal(host.session, argument)
        name, reasoning = proposal.proposer, proposal.reasoning
    else:
        name, reasoning = turn.model or "the aggregator", turn.reasoning
    if not reasoning.strip():
        raise UsageError(
            f"{name} returned no reasoning",
            hint="use a model that reasons and an endpoint that returns the reasoning",
        )
    host.page([("head", f"reasoning of {name}"), ("text", reasoning.strip())])


@command("diff", "N M", _numbers, section=Section.PROPOSALS)
def _diff(host: Host, argument: str) -> None:
    """Show two proposals of the last layer side by side, with what differs marked."""
    from moa_cli.chat.similarity import differences
    from moa_cli.terminal.side_by_side import marked_side_by_side

    words = argument.split()
    if len(words) != 2:
        raise UsageError("/diff needs the numbers of two proposals", hint="/diff 1 2")
    first, second = (_proposal(host.session, word) for word in words)
    left, right = differences(first.text, second.text)
    host.draw(marked_side_by_side((first.proposer, left), (second.proposer, right)))


@command("why", section=Section.PROPOSALS)
def _why(host: Host, argument: str) -> None:
    """Show the most similar proposal for each passage of the reply, and who holds it."""
    from moa_cli.chat.similarity import closest, nearest_points, shares
    from moa_cli.terminal.side_by_side import closeness_table

    turn = _last(host.session)
    answered = mergeable(turn.proposals)
    if not turn.reply or not answered:
        raise UsageError("there is no reply with proposals to compare it to")
    found = closest(turn.reply, [proposal.text for proposal in answered])
    if not found:
        raise UsageError("the reply is too short to compare it to anything")
    names = [proposal.proposer for proposal in answered]
    rows = [(match.passage, [names[i] for i in match.indexes], match.percent) for match in found]
    held = None
    if turn.report is not None:
        points = nearest_points(found, turn.report.points)
        held = [", ".join(point.proposers) if point else "" for point in points]
    host.draw(closeness_table(rows, len(names), held))
    parts = sorted(zip(shares(found, len(names)), names, strict=True), key=lambda part: -part[0])
    host.say("closest to: " + ", ".join(f"{name} {share:.0%}" for share, name in parts))
    host.say("(by similar spelling, which does not prove where a passage comes from)")
    if held is not None:
        host.say(
            "(held by: the proposers of the point in the report that is most similar to the"
            " passage)"
        )


@command("report", section=Section.PROPOSALS)
def _report(host: Host, argument: str) -> Outcome:
    """Show where the last proposals agree and disagree (one call, if no report is kept)."""
    report = _last(host.session).report
    if report is None:
        return MakeReport()
    host.say(report_text(report))
    return None


@command("retry", "[MODEL]", model_words, section=Section.ASK)
def _retry(host: Host, argument: str) -> Outcome:
    """Ask the last prompt again; MODEL writes only this reply."""
    last = host.session.last
    parts = last.parts if last else ()
    return Send(host.session.take_back(), argument or None, parts, again=True)


def _remerge_words(host: Host, typed: str) -> list[str | Suggestion]:
    return [*STRATEGIES, *model_words(host, typed)]


@command("remerge", "[STRATEGY] [MODEL]", _remerge_words, section=Section.ASK)
def _remerge(host: Host, argument: str) -> Outcome:
    """Write a new reply from the last proposals, by another STRATEGY and MODEL if given."""
    first, _, rest = argument.partition(" ")
    strategy = next((name for name in STRATEGIES if name == first), None)
    model = argument if strategy is None else rest.strip()
    known = host.session.profile.models()
    if re.fullmatch(r"[\w-]+", model) and model not in known:
        raise UsageError(
            f"{model!r} is neither a strategy nor a model",
            hint=f"the strategies are {', '.join(STRATEGIES)}",
        )
    return Remerge(strategy, model or None)


@command("undo", section=Section.ASK)
def _undo(host: Host, argument: str) -> None:
    """Forget the last turn."""
    turn = host.session.undo()
    for replaced in host.session.replaced:
        host.kept.withdraw(replaced)
    host.say(f"forgot: {one_line(turn.user, 60)}")
    if turn.stored_as is not None and host.kept.store is not None:
        host.say(
            "it stays in the file until the conversation is deleted; `moa history delete --undone"
            f" {host.kept.id}` deletes it now"
        )


@command("fork", section=Section.CONVERSATION)
def _fork(host: Host, argument: str) -> None:
    """Continue in a copy; the conversation so far stays as it is."""
    host.session.go_on(host.kept.fork())
    host.say(f"a copy: {host.kept.id}")


def _conversation_words(host: Host, typed: str) -> list[Suggestion]:
    try:
        with ExitStack() as opened:
            store = host.kept.store
            if store is None:
                from moa_cli.store.store import Store

                if not paths.database_file().exists():
                    return []
                store = opened.enter_context(closing(Store.open_to_read()))
            rows = store.conversations(limit=_MOST_CONVERSATIONS)
    except StoreError:
        # No suggestions: the command itself will report the error.
        return []
    return [Suggestion(row.id, one_line(row.title)) for row in rows if row.id != host.kept.id]


@command("resume", "[ID]", _conversation_words, section=Section.CONVERSATION)
def _resume(host: Host, argument: str) -> Outcome:
    """Continue another conversation, chosen from a list if no ID is given."""
    return Resume(argument)


@command("rename", "TITLE", section=Section.CONVERSATION)
def _rename(host: Host, argument: str) -> None:
    """Give the conversation another title."""
    title = checked_title(argument)
    host.kept.rename(title)
    host.say(f"renamed: {title}")


@command("tag", "[[--remove] TAG…]", section=Section.CONVERSATION)
def _tag(host: Host, argument: str) -> None:
    """Tag the conversation, remove tags, or show its tags."""
    words = argument.split()
    remove = "--remove" in words
    tags = [checked_tag(word) for word in words if word != "--remove"]
    if remove and not tags:
        raise UsageError("/tag --remove needs tags")
    now = host.kept.tag(tags, remove=remove)
    host.say(f"tags: {', '.join(now)}" if now else "no tags")


@command("usage", "[--json]", ("--json",))
def _usage(host: Host, argument: str) -> None:
    """Show the calls, tokens and cost since this chat began, by model."""
    spent = host.session.spent
    if argument == "--json":
        host.show(dumps({model: usage_to_dict(usage) for model, usage in spent.items()}, indent=2))
        return
    if argument:
        raise UsageError(f"/usage or /usage --json, not /usage {argument}")
    if not spent:
        raise UsageError("there are no turns yet")
    host.say("\n".join(spent_lines(spent)))


def _copied_words(host: Host, typed: str) -> list[Suggestion]:
    from moa_cli.markdown.syntax import code_blocks

    reply = host.session.last.reply if host.session.last else None
    blocks = [one_line(block, 60) for block in code_blocks(sanitize(reply or ""))]
    numbered = [Suggestion(str(number), block) for number, block in enumerate(blocks, 1)]
    return [Suggestion("code", "the last block of code"), *numbered]


@command("copy", "[N | code]", _copied_words, section=Section.ASK)
def _copy(host: Host, argument: str) -> None:
    """Copy the last reply, its N-th block of code, or the last one (code) to the clipboard."""
    text = _last(host.session).reply
    if not text:
        raise UsageError("there is no reply to copy")
    of_all = ""
    if argument:
        from moa_cli.markdown.syntax import code_blocks

        if argument != "code" and not argument.isdecimal():
            raise UsageError(f"/copy, /copy N or /copy code, not /copy {argument}")
        blocks = code_blocks(sanitize(text))
        number = len(blocks) if argument == "code" else whole(argument)
        if not blocks:
            raise UsageError("the reply holds no block of code")
        if not 1 <= number <= len(blocks):
            raise UsageError(f"there is no block of code {number}", hint=f"1 to {len(blocks)}")
        text = blocks[number - 1]
        of_all = f" of block {number} of {len(blocks)}" if len(blocks) > 1 else ""
    # Sanitized, so that the copied text is the text that was shown.
    text = sanitize(text)
    host.say(f"copied {plural(len(text), 'character')}{of_all} ({copy(text)})")


@command("dry-run", "PROMPT", section=Section.ASK)
def _dry_run(host: Host, argument: str) -> None:
    """Show the calls, exact prompts and likely cost of PROMPT; nothing is sent."""
    from moa_cli.terminal.estimate import plan

    session = host.session
    files = [file.part for file in current_files(host)]
    asked = session.conversation.ask(*prompt_of([Part("text", argument), *files]))
    host.show(plan(session.profile, asked, session.known(), session.assumed_context))
