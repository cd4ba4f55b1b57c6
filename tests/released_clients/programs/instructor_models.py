"""Instructor: a model by its default way, by JSON mode and by schema, and in parts."""

import json

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


told = {}
said = [{"role": "user", "content": "Who is it?"}]
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(OpenAI(max_retries=0), mode=mode)
    found = client.chat.completions.create(
        model="moa", response_model=Person, messages=said, max_retries=0
    )
    told[mode.name] = found.model_dump()
client = instructor.from_openai(OpenAI(max_retries=0))
*_, last = client.chat.completions.create_partial(
    model="moa", response_model=Person, messages=said, max_retries=0
)
told["partial"] = last.model_dump()
print(json.dumps(told))
