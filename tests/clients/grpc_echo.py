"""A unary and a bidirectional call with grpcio, messages as plain bytes."""

import json
import os
import queue

import grpc

with open(os.environ["SSL_CERT_FILE"], "rb") as roots:
    credentials = grpc.ssl_channel_credentials(roots.read())
metadata = (("authorization", f"Bearer {os.environ['ECHO_KEY']}"),)
with grpc.secure_channel("echo.example.com:443", credentials) as channel:
    unary = channel.unary_unary("/echo.Echo/Unary")
    answer, call = unary.with_call(b"hello", metadata=metadata, timeout=30)

    # Each message is sent only after the answer to the one before: nothing may be held back.
    outgoing = queue.Queue()
    bidi = channel.stream_stream("/echo.Echo/Bidi")(iter(outgoing.get, None), metadata=metadata, timeout=30)
    answers = []
    for number in range(3):
        outgoing.put(b"message %d" % number)
        answers.append(next(bidi).decode())
    outgoing.put(None)
    rest = len(list(bidi))
print(
    json.dumps(
        {
            "unary": answer.decode(),
            "status": call.code().name,
            "trailers": dict(call.trailing_metadata()),
            "bidi": answers,
            "rest": rest,
        }
    )
)
