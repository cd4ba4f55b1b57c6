"""LiteLLM's library: a tool call, structured output, a stream."""

import json
import os

import litellm
from pydantic import BaseModel

litellm.telemetry = False
usual = {
    "model": "openai/moa",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": "none",
    "num_retries": 0,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class Person(BaseModel):
    name: str
    age: int


said = [{"role": "user", "content": "What is the weather in Paris?"}]
first = litellm.completion(messages=said, tools=[TOOL], **usual).choices[0].message
(call,) = first.tool_calls
said += [
    first.model_dump(),
    {"role": "tool", "tool_call_id": call.id, "content": "Paris: sunny, 21 °C"},
]
told = {"loop": litellm.completion(messages=said, tools=[TOOL], **usual).choices[0].message.content}
who = [{"role": "user", "content": "Who is it?"}]
found = litellm.completion(messages=who, response_format=Person, **usual)
told["structured"] = json.loads(found.choices[0].message.content)
hello = [{"role": "user", "content": "Hello"}]
stream = litellm.completion(messages=hello, stream=True, **usual)
told["text"] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
print(json.dumps(told))
