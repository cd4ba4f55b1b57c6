"""Pydantic AI: a tool, output types by tool, by schema and by prompt, a stream, an image."""

import asyncio
import base64
import json
import os

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel

model = OpenAIChatModel("moa")


class Person(BaseModel):
    name: str
    age: int


agent = Agent(model)


@agent.tool_plain
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny, 21 °C"


async def streamed() -> str:
    async with Agent(model).run_stream("Hello") as stream:
        return await stream.get_output()


told = {"loop": agent.run_sync("What is the weather in Paris?").output}
for kind in (ToolOutput, NativeOutput, PromptedOutput):
    found = Agent(model, output_type=kind(Person)).run_sync("Who is it?")
    told[kind.__name__] = found.output.model_dump()
told["text"] = asyncio.run(streamed())
data = base64.b64decode(os.environ["IMAGE_URL"].partition(",")[2])
said = ["What is it?", BinaryContent(data=data, media_type="image/png")]
told["image"] = Agent(model).run_sync(said).output
print(json.dumps(told))
