"""Chat, streamed chat, a response and the model list with the openai SDK."""

import json

import openai

client = openai.OpenAI(max_retries=0, timeout=30)
messages = [{"role": "user", "content": "Say hello"}]
chat = client.chat.completions.create(model="gpt-test", messages=messages)
chunks = client.chat.completions.create(model="gpt-test", messages=messages, stream=True)
streamed = "".join(c.choices[0].delta.content or "" for c in chunks)
response = client.responses.create(model="gpt-test", input="Say hello")
print(
    json.dumps(
        {
            "chat": chat.choices[0].message.content,
            "streamed": streamed,
            "response": response.output_text,
            "models": [m.id for m in client.models.list()],
        }
    )
)
