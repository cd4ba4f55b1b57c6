"""AutoGen: an agent with a tool, whose reply streams, and structured output."""

import asyncio
import json
import os

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


async def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny, 21 °C"


async def use() -> dict[str, object]:
    client = OpenAIChatCompletionClient(
        model="moa",
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key="none",
        max_retries=0,
        model_info={
            "vision": True,
            "function_calling": True,
            "json_output": True,
            "structured_output": True,
            "family": "unknown",
        },
    )
    agent = AssistantAgent(
        "assistant",
        client,
        tools=[get_weather],
        reflect_on_tool_use=True,
        model_client_stream=True,
    )
    done = await agent.run(task="What is the weather in Paris?")
    whole = AssistantAgent("person", client, output_content_type=Person)
    found = await whole.run(task="Who is it?")
    await client.close()
    return {
        "loop": done.messages[-1].content,
        "structured": found.messages[-1].content.model_dump(),
    }


print(json.dumps(asyncio.run(use())))
