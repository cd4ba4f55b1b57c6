"""Smolagents: an agent that calls tools, and one that writes code."""

import json
import os

from smolagents import CodeAgent, OpenAIServerModel, ToolCallingAgent, tool

model = OpenAIServerModel("moa", api_base=os.environ["OPENAI_BASE_URL"], api_key="none")


@tool
def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: Its name.
    """
    return f"{city}: sunny, 21 °C"


agent = ToolCallingAgent(tools=[get_weather], model=model, max_steps=4, verbosity_level=0)
told = {"loop": str(agent.run("What is the weather in Paris?"))}
coder = CodeAgent(tools=[], model=model, max_steps=2, verbosity_level=0)
told["code"] = str(coder.run("Write code that adds 20 and 22."))
print(json.dumps(told))
