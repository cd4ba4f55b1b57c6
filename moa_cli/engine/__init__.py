"""The mixture, a pure async generator of events."""

from moa_cli.engine.call import Limits
from moa_cli.engine.control import Control
from moa_cli.engine.turn import run_turn

__all__ = ["Control", "Limits", "run_turn"]
