// The openai package against a running duet: models, chat, streams, errors.
// Usage: node openai_client.mjs BASE_URL MODEL...   Exits 1 on the first thing that is wrong.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, ...names] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 300_000 });
const messages = [{ role: "user", content: "What is the capital of France?" }];

// Ends either engine's greedy answer: the helpers of the package treat `length` as a failure.
const stop = [",", "."];

const listed = [];
for await (const model of client.models.list()) listed.push(model.id);

for (const model of names) {
  assert(listed.includes(model), `${model} is not in ${listed}`);
  assert.equal((await client.models.retrieve(model)).id, model);

  const answer = await client.chat.completions.create({ model, messages, stop, temperature: 0, max_tokens: 24 });
  const whole = answer.choices[0].message.content;
  assert(whole.trim().length > 0);
  const completion = { model, prompt: "The capital of France is", temperature: 0, max_tokens: 5 };
  assert.match((await client.completions.create(completion)).choices[0].text, /Paris/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);

  let text = "";
  let usage = null;
  const finishes = [];
  const stream = await client.chat.completions.create({
    model, messages, stop, temperature: 0, max_tokens: 24, stream: true, stream_options: { include_usage: true },
  });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole);
  assert.equal(finishes.length, 1);
  assert.equal(usage.total_tokens, answer.usage.total_tokens);

  const runner = client.chat.completions.stream({ model, messages, stop, temperature: 0, max_tokens: 24 });
  assert.equal(await runner.finalContent(), whole);

  const abandoned = await client.chat.completions.create({ model, messages, max_tokens: 400, stream: true });
  for await (const _ of abandoned) break; // leaving the loop aborts the request

  await assert.rejects(
    client.chat.completions.create({ model: "no-such-model", messages }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
  );
  await assert.rejects(
    client.chat.completions.create({ model, messages, top_p: 3 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "top_p",
  );
  console.log(`openai (Node), ${model}: ${JSON.stringify(whole)}`);
}
