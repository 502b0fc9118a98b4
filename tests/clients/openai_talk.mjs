// Chat, streamed chat, a response and the model list with the OpenAI SDK.
import { fetchByEnvironment, load } from "./door.mjs";

const OpenAI = load("openai").default;
const client = new OpenAI({ maxRetries: 0, timeout: 30_000, ...fetchByEnvironment() });
const messages = [{ role: "user", content: "Say hello" }];
const chat = await client.chat.completions.create({ model: "gpt-test", messages });
let streamed = "";
for await (const chunk of await client.chat.completions.create({ model: "gpt-test", messages, stream: true })) {
  streamed += chunk.choices[0].delta.content ?? "";
}
const response = await client.responses.create({ model: "gpt-test", input: "Say hello" });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(
  JSON.stringify({ chat: chat.choices[0].message.content, streamed, response: response.output_text, models }),
);
