"""A batch in shards: each process answers its share, and the parts are merged afterwards.

This is for job arrays of a cluster, and for several machines without a cluster. The processes share
nothing but IN, so each can be stopped and started again alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import Any

from moa_cli.batch.lines import identity_of
from moa_cli.batch.tables import ANSWERS, output_format
from moa_cli.bench.data.json_lines import read_table
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError

# The file of a batch's settings in OUT.state.
BATCH_FILE = "batch.json"
# The settings that must be the same in all parts of a batch. The limit of `-n` may differ.
_SHARED = ("input", "reading", "profile", "prompt", "strict", "proposals")


@dataclass(frozen=True)
class Shard:
    """A share of a batch: every `of`-th prompt, beginning with prompt `number` (from 1).

    Prompts are dealt in turn and not cut into blocks. So each prompt keeps its shard when lines are
    appended to IN.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def places(self) -> slice:
        """The places of its prompts among all prompts, from 0."""
        return slice(self.number - 1, None, self.of)


def read_shard(text: str) -> Shard:
    """The shard that `i/n` names. Raises UsageError."""
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise UsageError(
        f"--shard: `{text}` is no shard",
        hint="write i/n with i from 1 to n, such as 3/10 for the third of ten",
    )


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    lines: how many lines it has. failed: how many of these hold no reply. prompts: how many prompts
    the whole input has; None if unknown. absent: shards without a part. unfinished: shards whose
    part has fewer lines than the longest part implies. unknown: parts without a state, so that
    their batch is unknown. parts: all parts, each with its shard or None if it is unknown.
    """

    lines: int
    failed: int
    prompts: int | None
    absent: tuple[Shard, ...]
    unfinished: tuple[Shard, ...]
    unknown: tuple[Path, ...]
    parts: tuple[tuple[Path, str | None], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether each prompt has a reply, as far as that is known."""
        return not (self.failed or self.absent or self.unfinished)


@dataclass(frozen=True)
class _Shard:
    """An output of one process. answers: the file of its lines. settings: the settings of the batch
    that wrote it; None if there is no state."""

    path: Path
    answers: Path
    settings: Mapping[str, Any] | None
    shard: Shard | None


def merge_parts(parts: Sequence[Path], target: Path) -> Merged:
    """Merge the answers of shards into a new file, which appears only when it is complete.

    The parts take turns, each with the lines of one prompt. This gives the order of the input if
    all parts are complete and in order. Parts are read line by line, never as a whole.

    Raises BenchError if a part cannot be read or is damaged, parts are not of one batch, or two
    lines have the same id, UsageError if the target exists, OSError if it cannot be written.
    """
    if target.exists():
        raise UsageError(f"{target}: already exists", hint="name a new file as the last argument")
    found = [_read_part(path) for path in parts]
    _check_one_batch(found)
    found.sort(key=lambda part: part.shard.number if part.shard else 0)
    counts = [0] * len(found)
    failed, samples, sampled = 0, 1, _are_sampled(found)
    # A hash of each id instead of the id, which is usually longer.
    seen: set[bytes] = set()
    with paths.replacing(target) as file:
        for taken in zip_longest(
            *(_answers_of(part.answers, sampled=sampled) for part in found), fillvalue=()
        ):
            for part, answers in enumerate(taken):
                samples = max(samples, len(answers))
                for answer in answers:
                    mark = blake2b(answer.id.encode(), digest_size=12).digest()
                    if mark in seen:
                        raise BenchError(
                            f"{answer.place}: {answer.id} has an answer already",
                            hint="give the parts of one batch, and each of them once",
                        )
                    seen.add(mark)
                    file.write(answer.line)
                    counts[part] += 1
                    failed += not answer.good
    shards = {part.shard: count for part, count in zip(found, counts, strict=True) if part.shard}
    of = next(iter(shards)).of if shards else 0
    all_shards = [Shard(number, of) for number in range(1, of + 1)]
    # Prompts are dealt in turn, so the longest part gives a lower bound of their number.
    dealt = max(
        (shard.number + ((count - 1) // samples) * of for shard, count in shards.items() if count),
        default=0,
    )
    return Merged(
        lines=sum(counts),
        failed=failed,
        prompts=_prompts(found),
        absent=tuple(shard for shard in all_shards if shard not in shards),
        unfinished=tuple(
            shard
            for shard, count in shards.items()
            if count < len(range(shard.number, dealt + 1, of)) * samples
        ),
        unknown=tuple(part.path for part in found if part.settings is None),
        parts=tuple((part.path, str(part.shard) if part.shard else None) for part in found),
    )


def _read_part(path: Path) -> _Shard:
    if not paths.is_file(path):
        raise BenchError(f"{path}: there is no such file")
    state = path.with_name(f"{path.name}.state")
    settings = read_table(state / BATCH_FILE) if (state / BATCH_FILE).exists() else None
    told = (settings or {}).get("shard")
    shard = read_shard(told) if isinstance(told, str) else None
    answers = state / ANSWERS
    if not answers.exists():
        if not output_format(path.name).is_lines:
            raise BenchError(
                f"{path}: {answers}, which holds its lines, is gone",
                hint="name shards' outputs `.jsonl`; the merged one can have any format",
            )
        answers = path
    return _Shard(path, answers, settings, shard)


def _check_one_batch(parts: Sequence[_Shard]) -> None:
    """Raise BenchError if parts are known to be of different batches, or of the same shard."""
    known = [part for part in parts if part.settings is not None]
    for part in known[1:]:
        first = known[0]
        for name in _SHARED:
            if (part.settings or {}).get(name) != (first.settings or {}).get(name):
                raise BenchError(
                    f"{part.path}: is of another batch than {first.path}: its `{name}` differs",
                    hint="put only shards of one batch together",
                )
        if (part.shard and part.shard.of) != (first.shard and first.shard.of):
            raise BenchError(
                f"{part.path}: is shard {part.shard or 'none'}, but {first.path} is"
                f" {first.shard or 'none'}: prompts were dealt differently"
            )
    shards = Counter(part.shard for part in known if part.shard)
    for shard, times in shards.items():
        if times > 1:
            same = " and ".join(str(part.path) for part in known if part.shard == shard)
            raise BenchError(f"{same} are the same shard: {shard}", hint="give each part once")


def _are_sampled(parts: Sequence[_Shard]) -> bool:
    """Whether prompts were asked several times. True also if no part has a state, because they may
    have been."""
    told = next((part.settings for part in parts if part.settings is not None), None)
    reading = (told or {}).get("reading") or {}
    return told is None or reading.get("samples", 1) != 1


def _prompts(parts: Sequence[_Shard]) -> int | None:
    told = next((part.settings.get("input") for part in parts if part.settings), None)
    lines = told.get("lines") if isinstance(told, dict) else None
    return lines if isinstance(lines, int) else None


@dataclass(frozen=True)
class _Answer:
    """A line of a part. place: its file and line number, for messages. good: whether it holds a
    reply."""

    place: str
    line: bytes
    id: str
    sample: int
    good: bool


def _answers_of(path: Path, *, sampled: bool) -> Iterator[list[_Answer]]:
    """The lines of a part with their line ends, grouped by prompt. A last line without a line end
    is incomplete and left out."""
    group: list[_Answer] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                answer = _read_answer(f"{path}:{number}", line, sampled=sampled)
                if group and answer.sample <= group[-1].sample:
                    yield group
                    group = []
                group.append(answer)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from None
    if group:
        yield group


def _read_answer(place: str, line: bytes, *, sampled: bool) -> _Answer:
    """The answer in a line. Raises BenchError if it is not one."""
    try:
        values = json.loads(line)
        found = values if isinstance(values, dict) else {}
        identity, sample, good = identity_of(found, sampled=sampled)
    except (ValueError, RecursionError):
        raise BenchError(f"{place}: is no line of a batch's answers") from None
    return _Answer(place, line, identity, sample, good)
