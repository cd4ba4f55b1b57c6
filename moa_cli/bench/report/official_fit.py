"""A program that computes alpaca_eval's length-controlled win rates; `official` runs it.

Standard input: {"gamed": FILE, "arms": {NAME: ROWS}}; the rows are alpaca_eval's annotations.
The last line of standard output: {"version": …, "arms": {NAME: percent}}.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

from alpaca_eval.metrics import glm_winrate
from pandas import DataFrame


def main() -> None:
    """Fit each arm. The weights are not saved, because alpaca_eval would write them into its own
    folder."""
    asked = json.load(sys.stdin)
    # alpaca_eval fetches this file for each fit, but it is already on disk.
    glm_winrate.hf_hub_download = lambda *_, **__: asked["gamed"]
    arms = {}
    for name, rows in asked["arms"].items():
        fitted = glm_winrate.get_length_controlled_winrate(
            DataFrame(rows), save_weights_dir=None, is_warn_extreme_changes=False
        )
        arms[name] = float(fitted["length_controlled_winrate"])
    sys.stdout.write("\n" + json.dumps({"version": version("alpaca_eval"), "arms": arms}) + "\n")


if __name__ == "__main__":
    main()
