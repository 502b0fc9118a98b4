// A chat, a streamed one and a response, tried again as the SDK does by itself; says what became of each.
import { fetchByEnvironment, load } from "./door.mjs";

const OpenAI = load("openai").default;
const client = new OpenAI({ timeout: 60_000, ...fetchByEnvironment() });
const model = process.env.ASK_MODEL ?? "gpt-5";
const tokens = Number(process.env.ASK_TOKENS ?? 64);
const ask = { model, messages: [{ role: "user", content: "Say hello" }], max_completion_tokens: tokens };
const tried = async (call) => {
  try {
    return { text: await call() };
  } catch (error) {
    return { error: error.constructor.name, status: error.status ?? null, message: error.message };
  }
};
const plain = await tried(async () => (await client.chat.completions.create(ask)).choices[0].message.content);
const streamed = await tried(async () => {
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
  }
  return text;
});
const response = await tried(
  async () => (await client.responses.create({ model, input: "Say hello", max_output_tokens: tokens })).output_text,
);
console.log(JSON.stringify({ plain, streamed, response }));
