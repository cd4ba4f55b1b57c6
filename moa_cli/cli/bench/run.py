"""What `moa bench run` does once its options are read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.data.loading import data_folder, load_dataset
from moa_cli.bench.run.folder import RunFolder, open_run
from moa_cli.bench.run.plan import RunPlan, make_plan
from moa_cli.bench.run.runner import still_to_do
from moa_cli.cli import wiring
from moa_cli.cli.bench.cells import width_of_output
from moa_cli.cli.bench.session import Job, SessionOptions, check_can_ask, session
from moa_cli.cli.bench.text import plan_lines, summary_lines
from moa_cli.cli.exit_codes import BUDGET, FAILED
from moa_cli.cli.output import say
from moa_cli.core.conversation import Failure
from moa_cli.profile import Profile

__all__ = ["Options", "run"]


@dataclass(frozen=True, kw_only=True)
class Options(SessionOptions):
    """What was typed; None where nothing was."""

    dataset: str
    limit: int | None
    arms: tuple[str, ...]
    best: str | None
    parity: bool
    reference_paths: tuple[Path, ...]
    data: Path | None
    output: Path | None


def run(profile: Profile, options: Options) -> int:
    """Tell what it takes, ask, run, and tell what came of it; returns the exit code."""
    check_can_ask(options)
    dataset = load_dataset(options.dataset, data_folder(options.data))
    plan = make_plan(
        profile,
        dataset,
        kinds=options.arms,
        best=options.best,
        parity=options.parity,
        limit=options.limit,
        given_files=options.reference_paths,
    )
    path = options.output or Path("runs") / f"{dataset.name}-{profile.name}"
    with open_run(path) as folder:
        folder.check(plan.settings())
        for line in [*wiring.introduction(profile), *plan_lines(plan, folder)]:
            say(line)
        capped: Failure | None = None
        todo = still_to_do(plan, folder)
        if todo:
            code, capped = session(Job(plan, folder, folder, options), todo)
            if code:
                return code
        return _summary(plan, folder, capped)


def _summary(plan: RunPlan, folder: RunFolder, capped: Failure | None) -> int:
    """Print what came of it; the exit code."""
    width = width_of_output()
    sys.stdout.write("".join(f"{line}\n" for line in summary_lines(plan, folder, width)))
    sys.stdout.flush()
    if capped is not None:
        say(f"{capped.message} (the same command with a higher cap goes on from there)")
        return BUDGET
    failed = [one for one in folder.results.values() if one.error is not None]
    if failed:
        say(f"{len(failed)} failed; the same command tries them again")
        return FAILED
    return 0
