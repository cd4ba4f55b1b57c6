"""OpenAI's Agents SDK: an agent with a tool and with an output type, by both of its wires."""

import asyncio
import json
import os

from agents import Agent, Runner, function_tool, set_default_openai_api, set_tracing_disabled
from pydantic import BaseModel

set_tracing_disabled(True)


class Person(BaseModel):
    name: str
    age: int


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny, 21 °C"


async def use(wire: str) -> dict[str, object]:
    set_default_openai_api(wire)
    agent = Agent(name="Assistant", model="moa", tools=[get_weather])
    done = await Runner.run(agent, "What is the weather in Paris?")
    streamed = Runner.run_streamed(agent, "What is the weather in Paris?")
    async for _ in streamed.stream_events():
        pass
    typed = Agent(name="Typed", model="moa", output_type=Person)
    found = await Runner.run(typed, "Who is it?")
    return {
        "loop": done.final_output,
        "streamed": streamed.final_output,
        "structured": found.final_output.model_dump(),
    }


told = asyncio.run(use(os.environ["WIRE"]))
print(json.dumps(told))
