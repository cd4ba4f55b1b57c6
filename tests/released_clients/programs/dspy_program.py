"""DSPy: a signature by its chat adapter and by its JSON adapter."""

import json
import os

import dspy

model = dspy.LM(
    "openai/moa",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key="none",
    cache=False,
    num_retries=0,
)
dspy.configure(lm=model)


class Who(dspy.Signature):
    """Name a person."""

    question: str = dspy.InputField()
    name: str = dspy.OutputField()
    age: int = dspy.OutputField()


told = {}
for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter()):
    with dspy.context(adapter=adapter):
        found = dspy.Predict(Who)(question="Who is it?")
        told[type(adapter).__name__] = {"name": found.name, "age": found.age}
print(json.dumps(told))
