"""Sets of instructions and temperatures that make the proposals of a layer differ.

Answers of one model to one prompt are very similar, and a mixture needs different answers. Each
proposer of a layer gets the entry of the set at its own index; after the last entry, the set begins
again. A proposer keeps its own settings: an instruction of the set follows its own instruction, and
a temperature is set only if the proposer has none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from moa_cli.profile.schema import Proposer

Variety = Literal["temperatures", "approaches", "perspectives"]

TEMPERATURES = (0.3, 0.7, 1.0, 1.2)
INSTRUCTIONS: dict[Variety, tuple[str, ...]] = {
    "approaches": (
        "Work from first principles: say what is given, and derive each step from it.",
        "Work backwards: begin with what a right answer must fulfil, and check each step on it.",
        "Begin with a concrete example or a small case, then go on to the general one.",
        "Name two different ways to the answer, follow both, and compare where they lead.",
        "Look for what could go wrong: edge cases, wrong assumptions, and slips in the arithmetic.",
    ),
    "perspectives": (
        "Answer as an expert who cares most about accuracy, and says what is not certain.",
        "Answer as a practitioner who cares most about what works, in what order, at what cost.",
        "Answer as a critic who looks for what the usual answer leaves out or gets wrong.",
        "Answer as a teacher who cares most about being understood by somebody new to this.",
        "Answer as an outsider from another field who brings a view that others would not have.",
    ),
}


def varied(proposer: Proposer, variety: Variety, place: int) -> Proposer:
    """The proposer with its entry of a set. place: its index in the layer, from 0."""
    if variety == "temperatures":
        if proposer.temperature is not None:
            return proposer
        return replace(proposer, temperature=TEMPERATURES[place % len(TEMPERATURES)])
    instructions = INSTRUCTIONS[variety]
    text = instructions[place % len(instructions)]
    own = proposer.instruction
    return replace(proposer, instruction=f"{own}\n\n{text}" if own else text)
