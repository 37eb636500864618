// Calls a server with the official client, in every way a program does, and prints for each call, as a line of JSON, what it
// sent and what it made of the answer.

import OpenAI, * as errors from 'openai';

const baseURL = process.argv[2];
const model = process.argv[3];
const apiKey = 'sk-official';

let sent = []; // bodies, as they went out since the call began
const client = new OpenAI({
  baseURL,
  apiKey,
  maxRetries: 0,
  fetch: (url, init) => {
    sent.push(init.body);
    return fetch(url, init);
  },
});

const messages = [{ role: 'user', content: 'größer 😀 als je' }];
const usage = (u) => (u ? { in: u.prompt_tokens ?? u.input_tokens, out: u.completion_tokens ?? u.output_tokens ?? 0 } : null);

async function gather(stream) {
  const seen = { id: null, text: '', usage: null };
  for await (const chunk of stream) {
    seen.id = chunk.id;
    seen.text += chunk.choices[0]?.delta.content ?? '';
    seen.usage = usage(chunk.usage) ?? seen.usage;
  }
  return seen;
}

const calls = {
  async chat() {
    const answer = await client.chat.completions.create({ model, messages });
    return { id: answer.id, text: answer.choices[0].message.content, usage: usage(answer.usage) };
  },
  async stream() {
    return gather(await client.chat.completions.create({ model, messages, stream: true }));
  },
  async streamWithUsage() {
    return gather(await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } }));
  },
  async streamHelper() {
    const runner = client.chat.completions.stream({ model, messages, max_tokens: 200, stream_options: { include_usage: true } });
    const answer = await runner.finalChatCompletion();
    return { id: answer.id, text: answer.choices[0].message.content, usage: usage(answer.usage) };
  },
  async completion() {
    const answer = await client.completions.create({ model, prompt: 'a b c' });
    return { id: answer.id, text: answer.choices[0].text, usage: usage(answer.usage) };
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model, input: ['a b', 'c'] });
    return { id: answer.id, text: null, usage: usage(answer.usage), vectors: answer.data.map((d) => d.embedding) };
  },
  async response() {
    const answer = await client.responses.create({ model, input: 'a b c' });
    return { id: answer.id, text: answer.output_text, usage: usage(answer.usage) };
  },
  async responseStream() {
    const seen = { id: null, text: '', usage: null };
    for await (const event of await client.responses.create({ model, input: 'a b c', stream: true })) {
      if (event.type === 'response.output_text.delta') seen.text += event.delta;
      if (event.type === 'response.completed') Object.assign(seen, { id: event.response.id, usage: usage(event.response.usage) });
    }
    return seen;
  },
  async abort() {
    const controller = new AbortController();
    const stream = await client.chat.completions.create(
      { model, messages, stream: true, max_tokens: 500, stub: { pace: 0.02 } },
      { signal: controller.signal },
    );
    const seen = { id: null, text: '' };
    for await (const chunk of stream) {
      seen.id = chunk.id;
      seen.text += chunk.choices[0].delta.content;
      if (seen.text.split(' ').length > 5) controller.abort();
    }
    return seen;
  },
  async abortBefore() {
    await client.chat.completions.create({ model, messages, stub: { delay: 30 } }, { timeout: 300 });
  },
  async noSuchModel() {
    await client.chat.completions.create({ model: 'other', messages });
  },
  async refused() {
    await client.chat.completions.create({ model, messages, stub: { status: 422 } });
  },
  async unauthorized() {
    await client.withOptions({ apiKey: 'sk-wrong' }).chat.completions.create({ model, messages });
  },
  async failed() {
    await client.withOptions({ maxRetries: 2 }).chat.completions.create({ model, messages, stub: { status: 500 } });
  },
  async raised() {
    await client.chat.completions.create({ model, messages, stub: { raise: 'x' } });
  },
  async errorInStream() {
    await gather(await client.chat.completions.create({ model, messages, stream: true, stub: { status: 500, after: 3 } }));
  },
};

for (const [name, call] of Object.entries(calls)) {
  sent = [];
  let seen;
  try {
    seen = await call();
  } catch (error) {
    if (!(error instanceof errors.APIError)) throw error;
    seen = { error: error.constructor.name, status: error.status ?? null };
  }
  console.log(JSON.stringify({ name, sent, ...seen }));
}
