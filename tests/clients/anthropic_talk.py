"""One plain and one streamed message with the anthropic SDK; everything else comes from the environment."""

import json

import anthropic

client = anthropic.Anthropic(max_retries=0, timeout=30)
ask = dict(
    model="claude-test",
    max_tokens=64,
    messages=[{"role": "user", "content": "Say hello, größer"}],
)
text = client.messages.create(**ask).content[0].text
with client.messages.stream(**ask) as stream:
    streamed = "".join(stream.text_stream)
print(json.dumps({"text": text, "streamed": streamed}))
