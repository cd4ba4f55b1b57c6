"""LangChain: an agent with a tool, structured output, a stream, an image."""

import json
import os

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

model = ChatOpenAI(model="moa", max_retries=0)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny, 21 °C"


agent = create_agent(model, tools=[get_weather])
done = agent.invoke({"messages": [{"role": "user", "content": "What is the weather in Paris?"}]})
told = {"loop": done["messages"][-1].text}
for method in ("json_schema", "function_calling", "json_mode"):
    structured = model.with_structured_output(Person, method=method)
    told[method] = structured.invoke("Who is it? Answer as JSON.").model_dump()
told["text"] = "".join(str(chunk.text) for chunk in model.stream("Hello"))
image = {"type": "image_url", "image_url": {"url": os.environ["IMAGE_URL"]}}
said = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
told["image"] = model.invoke(said).text
print(json.dumps(told))
