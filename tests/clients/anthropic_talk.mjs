// One plain and one streamed message with the Anthropic SDK.
import { fetchByEnvironment, load } from "./door.mjs";

const Anthropic = load("@anthropic-ai/sdk").default;
const client = new Anthropic({ maxRetries: 0, timeout: 30_000, ...fetchByEnvironment() });
const ask = {
  model: "claude-test",
  max_tokens: 64,
  messages: [{ role: "user", content: "Say hello, größer" }],
};
const message = await client.messages.create(ask);
const streamed = await client.messages.stream(ask).finalText();
console.log(JSON.stringify({ text: message.content[0].text, streamed }));
