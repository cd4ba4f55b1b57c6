"""OpenAI's own library: a tool loop, parsed output, a stream with its usage, an image."""

import json
import os

from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(max_retries=0)
MODEL = "moa"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


class Person(BaseModel):
    name: str
    age: int


def loop(streamed: bool) -> str:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    for _ in range(5):
        if streamed:
            with client.chat.completions.stream(
                model=MODEL, messages=messages, tools=TOOLS
            ) as stream:
                for _event in stream:
                    pass
                message = stream.get_final_completion().choices[0].message
        else:
            done = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
            message = done.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return message.content
        for call in message.tool_calls:
            assert call.function.name == "get_weather"
            city = json.loads(call.function.arguments)["city"]
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "content": f"{city}: sunny, 21 °C"}
            )
    raise SystemExit("the loop does not end")


told = {"whole": loop(False), "streamed": loop(True)}

parsed = client.chat.completions.parse(
    model=MODEL, messages=[{"role": "user", "content": "Who is it?"}], response_format=Person
)
told["parsed"] = parsed.choices[0].message.parsed.model_dump()

*chunks, last = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": "Hello"}],
    stream=True,
    stream_options={"include_usage": True},
)
told["text"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
told["usage"] = last.usage.total_tokens

image = {"type": "image_url", "image_url": {"url": os.environ["IMAGE_URL"]}}
seen = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}],
)
told["image"] = seen.choices[0].message.content

print(json.dumps(told))
