"""LlamaIndex: an agent with a tool, and structured output."""

import asyncio
import json
import os

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

model = OpenAILike(
    model="moa",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key="none",
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=32_000,
    max_retries=0,
)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny, 21 °C"


async def use() -> dict[str, object]:
    agent = FunctionAgent(tools=[get_weather], llm=model)
    done = await agent.run("What is the weather in Paris?")
    found = await model.as_structured_llm(Person).acomplete("Who is it?")
    text = "".join([part.delta or "" async for part in await model.astream_complete("Hello")])
    return {"loop": str(done), "structured": found.raw.model_dump(), "text": text}


print(json.dumps(asyncio.run(use())))
