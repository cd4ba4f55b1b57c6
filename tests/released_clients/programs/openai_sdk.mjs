// OpenAI's own library for JavaScript: a tool loop, parsed output, a stream, and the Responses API.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ maxRetries: 0 });
const model = "moa";
const Person = z.object({ name: z.string(), age: z.number() });
const told = {};

const runner = client.chat.completions.runTools({
  model,
  messages: [{ role: "user", content: "What is the weather in Paris?" }],
  tools: [
    {
      type: "function",
      function: {
        name: "get_weather",
        description: "The weather of a city.",
        parameters: { type: "object", properties: { city: { type: "string" } } },
        parse: JSON.parse,
        function: ({ city }) => `${city}: sunny, 21 °C`,
      },
    },
  ],
});
told.loop = await runner.finalContent();

const parsed = await client.chat.completions.parse({
  model,
  messages: [{ role: "user", content: "Who is it?" }],
  response_format: zodResponseFormat(Person, "person"),
});
told.parsed = parsed.choices[0].message.parsed;

const stream = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "Hello" }],
  stream: true,
  stream_options: { include_usage: true },
});
told.text = "";
for await (const chunk of stream) {
  told.text += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) told.usage = chunk.usage.total_tokens;
}

if (process.env.RESPONSES) {
  const response = await client.responses.create({ model, input: "Hello" });
  told.response = response.output_text;
}
console.log(JSON.stringify(told));
