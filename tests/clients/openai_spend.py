"""A chat, a streamed one and a response, tried again as the SDK does by itself; says what became of each."""

import json
import os

import openai

client = openai.OpenAI(timeout=60)
model = os.environ.get("ASK_MODEL", "gpt-5")
tokens = int(os.environ.get("ASK_TOKENS", "64"))
messages = [{"role": "user", "content": "Say hello"}]


def chat():
    answer = client.chat.completions.create(
        model=model, messages=messages, max_completion_tokens=tokens
    )
    return answer.choices[0].message.content


def streamed():
    chunks = client.chat.completions.create(
        model=model, messages=messages, max_completion_tokens=tokens, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def response():
    return client.responses.create(
        model=model, input="Say hello", max_output_tokens=tokens
    ).output_text


def tried(call):
    try:
        return {"text": call()}
    except openai.APIError as error:
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "message": str(error),
        }


print(
    json.dumps(
        {"plain": tried(chat), "streamed": tried(streamed), "response": tried(response)}
    )
)
