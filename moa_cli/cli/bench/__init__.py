"""`moa bench`: the paper's evaluation, on your own models."""

from __future__ import annotations

from moa_cli.cli.commands import deferred

group = deferred(
    __name__,
    {
        "list": ("datasets:list_", "List the datasets, and where their files are."),
        "fetch": (
            "datasets:fetch",
            "Fetch a public dataset at a fixed commit: only files that are missing, each verified.",
        ),
        "run": (
            "run:run",
            "Answer a dataset's items; the same command resumes where it stopped.",
        ),
        "sweep": (
            "sweep:sweep",
            "Run mixtures of several sizes or aggregators over the same items, in one chart.",
        ),
        "judge": (
            "judge:judge",
            "Let a model judge a run's replies; the same command resumes where it stopped.",
        ),
        "agreement": (
            "agreement:agreement",
            "Measure how a run's judges agree beyond chance, and with your choices in `moa"
            " compare`.",
        ),
        "export": (
            "export:export",
            "Write a run's answers or judgements in the upstream evaluators' formats.",
        ),
        "report": (
            "report:report",
            "Print the results of runs: scores with standard errors, cost and time.",
        ),
        "items": (
            "items:items",
            "Print each item with its proposals, reply, verdict and cost; -o FILE.html is a page.",
        ),
        "analyse": (
            "analyse:analyse",
            "Analyse how a mixture uses its proposals: similarity, agreement, layers, time"
            " and cost.",
        ),
        "reproduce": (
            "reproduce:reproduce",
            "Show how to reproduce a table of the MoA paper: runs, price, and its figures beside"
            " yours.",
        ),
        "select": (
            "select:select",
            "Choose proposers by quality and diversity, and an aggregator, from runs with"
            " `single`.",
        ),
    },
    help="Evaluate mixtures: answer a dataset's items by several arms.",
)
