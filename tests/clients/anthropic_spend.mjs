// One plain and one streamed message, tried again as the SDK does by itself; says what became of each.
import { fetchByEnvironment, load } from "./door.mjs";

const Anthropic = load("@anthropic-ai/sdk").default;
const client = new Anthropic({ timeout: 60_000, ...fetchByEnvironment() });
const ask = {
  model: process.env.ASK_MODEL ?? "claude-sonnet-4-5",
  max_tokens: Number(process.env.ASK_TOKENS ?? 64),
  messages: [{ role: "user", content: "Say hello" }],
};
const tried = async (call) => {
  try {
    return { text: await call() };
  } catch (error) {
    return { error: error.constructor.name, status: error.status ?? null, message: error.message };
  }
};
const plain = await tried(async () => (await client.messages.create(ask)).content[0].text);
const streamed = await tried(() => client.messages.stream(ask).finalText());
console.log(JSON.stringify({ plain, streamed }));
