// The Vercel AI SDK: a tool loop, structured output, a stream and an image, by each provider.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const usual = { baseURL: process.env.OPENAI_BASE_URL, apiKey: "none" };
const models = {
  compatible: () =>
    createOpenAICompatible({ name: "moa", supportsStructuredOutputs: true, ...usual })("moa"),
  chat: () => createOpenAI(usual).chat("moa"),
  responses: () => createOpenAI(usual)("moa"),
  messages: () => createAnthropic(usual)("moa"),
};
const model = models[process.env.WIRE]();
const retries = { maxRetries: 0 };
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `${city}: sunny, 21 °C`,
  }),
};
const Person = z.object({ name: z.string(), age: z.number() });
const told = {};

const prompt = "What is the weather in Paris?";
const stopWhen = stepCountIs(5);
const done = await generateText({ model, prompt, tools, stopWhen, ...retries });
told.loop = done.text;
const streamed = streamText({ model, prompt, tools, stopWhen, ...retries });
told.streamed = "";
for await (const part of streamed.textStream) told.streamed += part;

const output = Output.object({ schema: Person });
const found = await generateText({ model, prompt: "Who is it?", output, ...retries });
told.structured = found.output;

const image = { type: "image", image: process.env.IMAGE_URL.split(",")[1], mediaType: "image/png" };
const content = [{ type: "text", text: "What is it?" }, image];
const seen = await generateText({ model, messages: [{ role: "user", content }], ...retries });
told.image = seen.text;
console.log(JSON.stringify(told));
