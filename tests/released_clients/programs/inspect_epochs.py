"""Inspect: three epochs of a sample with a tool, at the same time."""

import json
import os
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
    (log,) = eval(
        task,
        model="openai-api/moa/moa",
        epochs=3,
        display="none",
        log_dir=folder,
        max_retries=0,
        extra_body=json.loads(os.environ["EXTRA"]),
    )
    # The samples are read from the folder.
    told = {"status": log.status, "epochs": len(log.samples or ())}
print(json.dumps(told))
