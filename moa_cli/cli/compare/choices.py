"""`moa compare list`, `show`, `export` and `delete`: the user's earlier choices."""

from __future__ import annotations

import sys
from contextlib import closing
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from moa_cli.cli import wiring
from moa_cli.cli.compare.results import choices_since, drawn, revealed
from moa_cli.cli.history.cleaning import finish_later
from moa_cli.cli.options import (
    ForceFile,
    Json,
    JsonArray,
    NoPager,
    OutputFile,
    Plain,
    Since,
    Yes,
    time_ago,
    typed_or,
)
from moa_cli.cli.output import confirm, output_width, print_json, print_paged, print_table, say
from moa_cli.cli.saving import open_store
from moa_cli.cli.writing import destination
from moa_cli.core import paths
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import dumps, plural, when_text
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.store.comparisons import Comparison

_LONGEST_NOTE = 2_000
Number = Annotated[int, Argument(metavar="ID", min=1, help="The number of a choice, from `list`.")]


def list_(
    limit: Annotated[int, Option("-n", "--limit", metavar="N", min=1, help="How many.")] = 20,
    since: Since = None,
    json: JsonArray = False,
) -> None:
    """List your choices in `moa compare`, the latest first."""
    from moa_cli.compare.choices import choice_to_dict
    from moa_cli.terminal.table import Column

    found = choices_since(since, texts=True)[::-1][:limit]
    if json:
        print_json([choice_to_dict(comparison, texts=False) for comparison in found])
        return
    if not found:
        say("there are no choices yet")
        return
    notes = [choice.note for choice in found]
    prompts = [choice.texts.prompt if choice.texts else "" for choice in found]
    columns = [
        Column("id", [str(choice.number) for choice in found], right=True),
        Column("when", [when_text(choice.when) for choice in found], spare=3),
        Column("chosen", list(map(_chosen_arms, found)), widest=32 if any(prompts) else 40),
        Column("of", [str(len(choice.contenders)) for choice in found], right=True, spare=2),
        *([Column("note", notes, spare=1)] if any(notes) else []),
        Column("prompt", prompts) if any(prompts) else Column("", [""] * len(found)),
    ]
    print_table(columns)


def _chosen_arms(comparison: Comparison) -> str:
    from moa_cli.compare.choices import outcome_of

    if comparison.winner is None:
        return outcome_of(comparison)
    arms = [comparison.contenders[place] for place in comparison.winners]
    profiles = {contender.profile for contender in comparison.contenders}
    return ", ".join(
        arm.arm if len(profiles) == 1 else f"{arm.arm} ({arm.profile})" for arm in arms
    )


def show(
    number: Number,
    plain: Plain = None,
    no_pager: NoPager = False,
    json: Json = False,
) -> None:
    """Print a choice: its prompt and answers (if kept), which arms gave them, and your note."""
    from moa_cli.compare.choices import choice_to_dict, outcome_of

    choices = open_store(to_read=True).comparisons.since(texts=True)
    found = next((choice for choice in choices if choice.number == number), None)
    if found is None:
        raise StoreError(f"there is no choice {number}", hint="`moa compare list` lists them")
    if json:
        print_json(choice_to_dict(found, texts=True))
        return
    raw = typed_or(plain, wiring.config().plain or wiring.config().accessible)
    texts = found.texts
    lines = [f"{when_text(found.when)}: {outcome_of(found)}"]
    if texts is None:
        lines += ["(prompt and answers were not kept)", ""]
    else:
        lines.append("")
        for role, text in texts.before:
            lines += drawn(f"[{one_line(role)}]", text, raw=True)
        lines += drawn("", f"› {texts.prompt}", raw=True)
        for answer in dict.fromkeys(found.answers):
            places = [place for place, other in enumerate(found.answers) if other == answer]
            letters = ", ".join(ascii_uppercase[place] for place in places)
            lines += drawn(f"── {letters} ──", texts.answers[places[0]], raw=raw)
    lines += revealed(found.contenders, found.winners, output_width())
    if found.note:
        lines.append(folded(one_line(f"note: {found.note}", _LONGEST_NOTE), sys.stdout))
    print_paged(lines, no_pager=no_pager or wiring.config().accessible)


def export(
    since: Since = None,
    output: OutputFile = None,
    force: ForceFile = False,
) -> None:
    """Write the choices as lines of JSON, with prompts and answers where they were kept."""
    from moa_cli.compare.choices import choice_to_dict

    found = choices_since(since, texts=True)
    if not found:
        raise StoreError("there are no choices yet")
    path = None if output is None or str(output) == "-" else paths.expand(str(output))
    with destination(path, force=force, error=StoreError) as file:
        for comparison in found:
            file.write(f"{dumps(choice_to_dict(comparison, texts=True))}\n".encode())
    if path is not None:
        say(f"wrote {plural(len(found), 'choice')} to {path}")


def delete(
    numbers: Annotated[
        list[int] | None, Argument(metavar="ID", min=1, help="Numbers of choices, from `list`.")
    ] = None,
    all_: Annotated[bool, Option("--all", help="All choices.")] = False,
    older_than: Annotated[
        str | None, Option(metavar="SPAN", help="All older than SPAN, such as 30d.")
    ] = None,
    texts: Annotated[
        bool, Option("--texts", help="Only their prompts and answers; the choices stay.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Delete choices permanently, or only their prompts and answers and the verdicts of judges."""
    from moa_cli.compare.judging import forget

    if bool(numbers) + all_ + (older_than is not None) != 1:
        raise UsageError(
            "select what to delete in one way only", hint="ids, or --all, or --older-than 30d"
        )
    before = None if older_than is None else time_ago(older_than)
    with closing(open_store()) as store:
        found = store.comparisons.since(texts=True)
        if numbers:
            known = {comparison.number for comparison in found}
            for number in numbers:
                if number not in known:
                    hint = "`moa compare list` lists them"
                    raise StoreError(f"there is no choice {number}", hint=hint)
        chosen = [
            comparison
            for comparison in found
            if (numbers is None or comparison.number in numbers)
            and (before is None or comparison.when < before)
            and (comparison.texts is not None or not texts)
        ]
        if not chosen:
            say("nothing to delete")
            return
        told = plural(len(chosen), "choice")
        told = f"prompts and answers of {told}" if texts else told
        if not yes:
            confirm(f"Delete {told} permanently?")
        gone = [comparison.number for comparison in chosen if comparison.number is not None]
        # This comes first: while a judge is at work, nothing is deleted.
        forget(gone)
        later = finish_later(store.delete_comparisons(gone, texts_only=texts))
    say(f"deleted {told}")
    if later is not None:
        say(later)
