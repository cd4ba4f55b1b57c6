"""Anthropic's own library: a tool loop, a stream, an image, a count of tokens."""

import json
import os

from anthropic import Anthropic

client = Anthropic(max_retries=0)
TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
]
usual = {"model": "moa", "max_tokens": 1000}


def loop(streamed: bool) -> str:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    for _ in range(5):
        if streamed:
            with client.messages.stream(messages=messages, tools=TOOLS, **usual) as stream:
                done = stream.get_final_message()
        else:
            done = client.messages.create(messages=messages, tools=TOOLS, **usual)
        messages.append({"role": "assistant", "content": done.content})
        calls = [block for block in done.content if block.type == "tool_use"]
        if done.stop_reason != "tool_use":
            return "".join(block.text for block in done.content if block.type == "text")
        results = [
            {
                "type": "tool_result",
                "tool_use_id": call.id,
                "content": f"{call.input['city']}: sunny, 21 °C",
            }
            for call in calls
        ]
        messages.append({"role": "user", "content": results})
    raise SystemExit("the loop does not end")


told = {"whole": loop(False), "streamed": loop(True)}
hello = [{"role": "user", "content": "Hello"}]
with client.messages.stream(messages=hello, **usual) as stream:
    told["text"] = "".join(stream.text_stream)
kind, _, data = os.environ["IMAGE_URL"].removeprefix("data:").partition(";base64,")
image = {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
said = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
told["image"] = client.messages.create(messages=said, **usual).content[0].text
told["counted"] = client.messages.count_tokens(model="moa", messages=hello).input_tokens > 0
print(json.dumps(told))
