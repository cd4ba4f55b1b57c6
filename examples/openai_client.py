"""Use a mixture with OpenAI's own library. Start `moa serve` first.

OPENAI_BASE_URL names the server (http://127.0.0.1:8000/v1 if it is not set).
"""

from __future__ import annotations

import os

from openai import OpenAI

if __name__ == "__main__":
    client = OpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    print("models:", ", ".join(model.id for model in client.models.list()))
    stream = client.chat.completions.create(
        model="moa",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        # The object `moa` changes the mixture for this request.
        extra_body={"moa": {"rounds": 1, "samples": 1}},
        stream=True,
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    print()
