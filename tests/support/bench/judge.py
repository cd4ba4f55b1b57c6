"""A judge for the tests of `moa bench`: its prompt, and what it answers."""

from __future__ import annotations

from typing import Any

from tests.support.upstream import Reply, Request

__all__ = ["JUDGE", "TEMPLATE", "first_better"]

TEMPLATE = """<|im_start|>system
You rank models.
<|im_end|>
<|im_start|>user
{instruction} | {output_1} | {output_2}
<|im_end|>
"""


def first_better(request: Request) -> dict[str, Any]:
    """Log-probabilities by which the output shown first is better, at 80 %."""
    del request
    likely = (("m", -0.2231435513142097), ("M", -1.6094379124341003), ("The", -9.0))
    told = [{"token": token, "logprob": logprob} for token, logprob in likely]
    return {"content": [{"token": "m", "logprob": -0.223, "top_logprobs": told}]}


JUDGE = Reply(text="m", logprobs=first_better)
