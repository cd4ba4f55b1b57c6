"""The mixture of models: one turn is an async generator of events, without side effects."""

from moa_cli.engine.advice import check_tools
from moa_cli.engine.budget import Budget, Cap, Reservation
from moa_cli.engine.calls.call import Limits
from moa_cli.engine.fan_out import FanOutMemory
from moa_cli.engine.state import Control
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.engine.turn import check_names, run_report, run_turn

__all__ = [
    "Budget",
    "Cap",
    "Control",
    "FanOutMemory",
    "Limits",
    "Reservation",
    "ResponseFormat",
    "check_names",
    "check_tools",
    "run_report",
    "run_turn",
]
