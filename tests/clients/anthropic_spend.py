"""One plain and one streamed message, tried again as the SDK does by itself; says what became of each."""

import json
import os

import anthropic

client = anthropic.Anthropic(timeout=60)
ask = dict(
    model=os.environ.get("ASK_MODEL", "claude-sonnet-4-5"),
    max_tokens=int(os.environ.get("ASK_TOKENS", "64")),
    messages=[{"role": "user", "content": "Say hello"}],
)


def streamed():
    with client.messages.stream(**ask) as stream:
        return "".join(stream.text_stream)


def tried(call):
    try:
        return {"text": call()}
    except anthropic.APIError as error:
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "message": str(error),
        }


plain = tried(lambda: client.messages.create(**ask).content[0].text)
print(json.dumps({"plain": plain, "streamed": tried(streamed)}))
