"""Inspect: an evaluation of one sample with a tool."""

import json
import tempfile

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool


@tool
def get_weather():
    async def execute(city: str) -> str:
        """The weather of a city.

        Args:
            city: Its name.
        """
        return f"{city}: sunny, 21 °C"

    return execute


task = Task(
    dataset=[Sample(input="What is the weather in Paris?", target="21 °C")],
    solver=[use_tools(get_weather()), generate()],
    scorer=includes(),
)
with tempfile.TemporaryDirectory() as folder:
    (log,) = eval(task, model="openai-api/moa/moa", display="none", log_dir=folder, max_retries=0)
    (sample,) = log.samples or (None,)
    told = {"status": log.status, "loop": sample.output.completion if sample else str(log.error)}
print(json.dumps(told))
