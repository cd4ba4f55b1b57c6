"""The figures of the MoA paper (arXiv:2406.04692), under their own judges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from moa_cli.bench.scoring.flask import SKILLS

# A value, and the ± printed with it, or None.
Figure = tuple[float, float | None]


@dataclass(frozen=True)
class PublishedTable:
    """A published table. dataset: its name in `moa bench`. judged: "by" and the judge, for
    titles."""

    dataset: str
    title: str
    judged: str
    source: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]
    digits: int


def _row(name: str, *values: float) -> tuple[str, tuple[Figure, ...]]:
    return name, tuple((value, None) for value in values)


_PAPER = (
    "Wang et al., Mixture-of-Agents Enhances Large Language Model Capabilities, arXiv:2406.04692"
)
_RUNS = "±: standard deviation over the authors' three runs, not a standard error over items"
# The scores of the skills, in the order of SKILLS.
_FLASK_GPT_4O = (4.55, 4.35, 4.66, 4.3, 4.51, 4.43, 3.77, 4.44, 3.93, 4.93, 4.68, 4.89)
_FLASK_MOA = (4.4, 4.41, 4.57, 4.35, 4.5, 4.43, 4.29, 4.59, 4.22, 4.81, 4.23, 4.88)
_FLASK_QWEN = (4.18, 4.1, 4.46, 4.29, 4.43, 4.41, 4.13, 4.48, 4.27, 4.88, 4.5, 4.77)
_FLASK_GPT_3 = (3.91, 3.89, 4.31, 3.88, 4.14, 4.02, 3.35, 3.79, 3.25, 4.83, 4.73, 4.6)

_alpaca = partial(PublishedTable, dataset="alpaca", judged="by gpt-4-1106-preview", digits=1)

PUBLISHED = (
    _alpaca(
        title="AlpacaEval 2, all 805 items",
        source=f"{_PAPER}, Table 2",
        note=_RUNS,
        columns=("LC win rate (%)", "win rate (%)"),
        rows=(
            ("MoA w/ GPT-4o", ((65.7, 0.7), (78.7, 0.2))),
            ("MoA", ((65.1, 0.6), (59.8, 0.3))),
            ("MoA-Lite", ((59.3, 0.2), (57, 0.7))),
            _row("GPT-4 Omni (05/13)", 57.5, 51.3),
            _row("GPT-4 Turbo (04/09)", 55.0, 46.1),
            _row("WizardLM 8x22B (authors' replication)", 51.3, 62.3),
            _row("GPT-4 Preview (11/06)", 50.0, 50.0),
            _row("Qwen1.5 110B Chat", 43.9, 33.8),
            _row("Qwen1.5 72B Chat", 36.6, 26.5),
            _row("GPT-4 (03/14)", 35.3, 22.1),
            _row("Llama 3 70B Instruct", 34.4, 33.2),
            _row("Mixtral 8x22B v0.1", 30.9, 22.2),
        ),
    ),
    PublishedTable(
        dataset="mt",
        title="MT-Bench, all 80 items",
        judged="by gpt-4",
        source=f"{_PAPER}, Table 2",
        note=_RUNS,
        columns=("average (of 10)", "turn 1 (of 10)", "turn 2 (of 10)"),
        rows=(
            ("MoA w/ GPT-4o", ((9.4, 0.06), (9.49, None), (9.31, None))),
            _row("GPT-4 Turbo (04/09)", 9.31, 9.35, 9.28),
            ("MoA", ((9.25, 0.1), (9.44, None), (9.07, None))),
            _row("GPT-4 Preview (11/06)", 9.2, 9.38, 9.03),
            _row("GPT-4 Omni (05/13)", 9.19, 9.31, 9.07),
            ("MoA-Lite", ((9.18, 0.09), (9.38, None), (8.99, None))),
            _row("Qwen1.5 110B Chat", 8.96, 9.23, 8.63),
            _row("Llama 3 70B Instruct", 8.94, 9.2, 8.68),
            _row("Mixtral 8x22B v0.1", 8.78, 9.11, 8.44),
            _row("WizardLM 8x22B", 8.78, 8.96, 8.61),
            _row("Qwen1.5 72B Chat", 8.44, 8.55, 8.34),
            _row("GPT-4 (06/13)", 8.84, 9.08, 8.61),
        ),
        digits=2,
    ),
    PublishedTable(
        dataset="flask",
        title="FLASK",
        judged="by GPT-4",
        source=f"{_PAPER}, the radar chart",
        note="the paper prints no numbers: these are read off its chart, good to ± 0.05",
        columns=SKILLS,
        rows=(
            _row("GPT-4 Omni (05/13)", *_FLASK_GPT_4O),
            _row("MoA", *_FLASK_MOA),
            _row("Qwen1.5-110B-Chat", *_FLASK_QWEN),
            _row("GPT-3.5-turbo-0125", *_FLASK_GPT_3),
        ),
        digits=2,
    ),
    PublishedTable(
        dataset="math",
        title="MATH, accuracy of each model as aggregator by layer",
        judged="by right answers",
        source=f"{_PAPER}, Table 8",
        note="all six models propose in each layer; what the first layer has is the model alone",
        columns=("layer 1 (%)", "layer 2 (%)", "layer 3 (%)"),
        rows=(
            _row("Qwen1.5-72B-Chat", 42.8, 52.6, 55.2),
            _row("Qwen1.5-110B-Chat", 50.0, 57.0, 57.6),
            _row("Wizard 8x22b", 54.4, 57.4, 58.0),
            _row("Mixtral-8x22B-Instruct-v0.1", 28.2, 53.4, 55.6),
            _row("Llama-3-70B-Instruct", 45.6, 58.4, 57.8),
            _row("dbrx-instruct", 31.4, 45.6, 52.2),
        ),
        digits=1,
    ),
)

_TWO_LAYERS = "LC win rates of two layers; Qwen1.5-110B-Chat aggregates unless the row's model does"
# Further tables of the paper, which only `moa bench reproduce` shows.
ABLATIONS = (
    _alpaca(
        title="AlpacaEval 2 by number of proposers",
        source=f"{_PAPER}, Table 3",
        note=_TWO_LAYERS,
        columns=("multiple-proposer (%)", "single-proposer (%)"),
        rows=(
            _row("n = 6", 61.3, 56.7),
            _row("n = 3", 58.0, 56.1),
            _row("n = 2", 58.8, 54.5),
            _row("n = 1", 47.8, 47.8),
        ),
    ),
    _alpaca(
        title="AlpacaEval 2 by the model's role",
        source=f"{_PAPER}, Table 4",
        note=_TWO_LAYERS,
        columns=("as aggregator (%)", "as proposer (%)"),
        rows=(
            _row("Qwen1.5-110B-Chat", 61.3, 56.7),
            _row("Qwen1.5-72B-Chat", 59.3, 53.3),
            _row("LLaMA-3-70b-Instruct", 45.0, 60.6),
            _row("WizardLM 8x22B", 52.9, 63.8),
            _row("Mixtral-8x22B-Instruct", 48.4, 54.8),
            _row("dbrx-instruct", 41.5, 55.1),
        ),
    ),
    _alpaca(
        title="AlpacaEval 2, mixture and LLM-ranker by layers",
        source=f"{_PAPER}, Figure 4 (a)",
        note="a chart without numbers: the ranker's curve is below the mixture's",
        columns=("MoA (%)", "LLM-ranker (%)"),
        rows=(),
    ),
)
