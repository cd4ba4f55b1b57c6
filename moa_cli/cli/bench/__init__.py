"""`moa bench`: the paper's evaluation, on your own models."""

from __future__ import annotations

from moa_cli.cli.commands import deferred

group = deferred(
    __name__,
    {
        "list": ("datasets:list_", "List the datasets, and where their files are."),
        "fetch": (
            "datasets:fetch",
            "Fetch a public dataset at a fixed commit; only what is missing, and checked.",
        ),
        "run": (
            "run:run",
            "Answer a dataset's items; the same command goes on where it was stopped.",
        ),
        "sweep": (
            "sweep:sweep",
            "Run mixtures of several sizes or aggregators over the same items, in one chart.",
        ),
        "judge": (
            "judge:judge",
            "Let a model judge a run's replies; the same command goes on where it was stopped.",
        ),
        "agreement": (
            "agreement:agreement",
            "Tell how far a run's judges agree beyond chance, and with your choices in"
            " `moa compare`.",
        ),
        "export": (
            "export:export",
            "Write a run's answers or judgements in the upstream evaluators' formats.",
        ),
        "report": (
            "report:report",
            "Print what runs came to: scores with standard errors, cost and time.",
        ),
        "items": (
            "items:items",
            "Print each item with its proposals, reply, verdict and cost; -o FILE.html is a page.",
        ),
        "analyse": (
            "analyse:analyse",
            "Tell what a mixture made of its proposals: likeness, agreement, layers, time and"
            " cost.",
        ),
        "reproduce": (
            "reproduce:reproduce",
            "Show how a table of the MoA paper is reproduced: runs, price, and its figures beside"
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
