// openai, @anthropic-ai/sdk and the AI SDK: text, streams, tools, a typed answer, error classes.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import Anthropic from "@anthropic-ai/sdk";
import { generateText, streamText, generateObject, tool, stepCountIs } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createAnthropic } from "@ai-sdk/anthropic";
import { z } from "zod";

const Weather = z.object({ city: z.string(), degrees: z.int() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const messages = [{ role: "user", content: "hi" }];
const max_tokens = 50;
const told = {};

const tried = async (ask) => {
  const names = [];
  for (const status of [400, 429, 500]) {
    try {
      await ask(`status ${status}`);
      names.push("none");
    } catch (error) {
      names.push(error.constructor.name);
    }
  }
  return names;
};

for (const model of process.argv.slice(2)) {
  const openai = new OpenAI();
  const chat = openai.chat.completions;
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  let streamed = "";
  for await (const chunk of await chat.create({ model, messages, stream: true })) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
  }
  const asked = (await chat.create({ model, messages, tools })).choices[0].message;
  const results = asked.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "21 degrees" }));
  const typed = await chat.parse({ model, messages, response_format: zodResponseFormat(Weather, "Weather") });
  told[`openai ${model}`] = {
    text: (await chat.create({ model, messages })).choices[0].message.content,
    stream: streamed,
    tools: (await chat.create({ model, messages: [...messages, asked, ...results], tools })).choices[0].message.content,
    typed: Object.values(typed.choices[0].message.parsed),
    errors: await tried((content) => chat.create({ model, messages: [{ role: "user", content }] })),
  };

  const stream = openai.responses.stream({ model, input: "hi" });
  const completed = await stream.finalResponse();
  told[`responses ${model}`] = {
    text: (await openai.responses.create({ model, input: "hi" })).output_text,
    stream: completed.output_text,
  };

  const anthropic = new Anthropic({ apiKey: process.env.ANTHROPIC_API_KEY });
  const own = [{ name: "weather", input_schema: parameters }];
  const use = await anthropic.messages.create({ model, max_tokens, messages, tools: own });
  const block = use.content.find((each) => each.type === "tool_use");
  const after = [
    ...messages,
    { role: "assistant", content: use.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: block.id, content: "21 degrees" }] },
  ];
  told[`anthropic ${model}`] = {
    text: (await anthropic.messages.create({ model, max_tokens, messages })).content[0].text,
    stream: await anthropic.messages.stream({ model, max_tokens, messages }).finalText(),
    tools: (await anthropic.messages.create({ model, max_tokens, messages: after, tools: own })).content[0].text,
    errors: await tried((content) => anthropic.messages.create({ model, max_tokens, messages: [{ role: "user", content }] })),
  };

  const makers = {
    "ai chat": createOpenAI().chat(model),
    "ai responses": createOpenAI()(model),
    "ai anthropic": createAnthropic({ baseURL: `${process.env.ANTHROPIC_BASE_URL}/v1` })(model),
  };
  for (const [name, maker] of Object.entries(makers)) {
    const weather = tool({ inputSchema: z.object({ city: z.string() }), execute: async () => "21 degrees" });
    const typedBy = await generateObject({ model: maker, schema: Weather, prompt: "hi" });
    told[`${name} ${model}`] = {
      text: (await generateText({ model: maker, prompt: "hi" })).text,
      stream: await streamText({ model: maker, prompt: "hi" }).text,
      tools: (await generateText({ model: maker, prompt: "hi", tools: { weather }, stopWhen: stepCountIs(3) })).text,
      typed: Object.values(typedBy.object),
    };
  }
}
console.log(JSON.stringify(told));
