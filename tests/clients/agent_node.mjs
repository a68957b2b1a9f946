// Scripted conversations through the openai package for Node: the runner of tools, streamed arguments, Responses, errors.
// Usage: node agent_node.mjs BASE_URL KEY MODEL...   The server plays script.jsonl. Exits 1 on the first thing that is wrong.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, apiKey, ...names] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: 300_000 });
const question = "Compare the weather in Bonn and Tromsø.";
const ask = { role: "user", content: question };
const parameters = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
};
const results = { Bonn: "rain in Bonn", "Tromsø": "snow in Tromsø" };
const final = "Rain in Bonn, snow in Tromsø.";

for (const model of names) {
  const asked = [];
  const weather = {
    name: "weather",
    description: "The weather of a city in the next days",
    parameters,
    parse: JSON.parse,
    function: (input) => {
      asked.push(input);
      return results[input.city];
    },
  };
  const tools = [{ type: "function", function: weather }];
  for (const stream of [false, true]) {
    const runner = client.chat.completions.runTools({
      model, messages: [ask], tools, stream, ...(stream ? { stream_options: { include_usage: true } } : {}),
    });
    assert.equal(await runner.finalContent(), final);
    const usages = runner.allChatCompletions().map((one) => one.usage);
    assert.equal(usages.length, 2);
    assert(usages[1].prompt_tokens_details.cached_tokens >= usages[0].prompt_tokens - 1, JSON.stringify(usages));
  }
  const wanted = [{ city: "Bonn", days: 2 }, { city: "Tromsø", days: 1 }];
  assert.deepEqual(asked, [...wanted, ...wanted]);

  const tool = { type: "function", name: "weather", parameters, strict: false };
  const first = await client.responses.create({ model, input: question, tools: [tool] });
  const input = first.output
    .filter((item) => item.type === "function_call")
    .map((call) => ({ type: "function_call_output", call_id: call.call_id, output: results[JSON.parse(call.arguments).city] }));
  assert.equal(input.length, 2);
  const types = [];
  let text = "";
  for await (const event of await client.responses.create({
    model, input, tools: [tool], previous_response_id: first.id, stream: true,
  })) {
    types.push(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, final);
  assert.equal(types.at(-1), "response.completed");

  const refused = (kind, code) => (error) => error instanceof kind && error.code === code;
  const chat = (more) => client.chat.completions.create({ model, messages: [ask], ...more });
  await assert.rejects(chat({ top_p: 3 }), refused(OpenAI.BadRequestError, "invalid_value"));
  await assert.rejects(chat({ model: "gpt-0" }), refused(OpenAI.NotFoundError, "model_not_found"));
  const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-somebody-else", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), refused(OpenAI.AuthenticationError, "invalid_api_key"));
  console.log(`openai (Node), ${model}: ${final}`);
}
