"""Upload, download and an odd path with httpx; the upload has no Content-Length."""

import json
import os

import httpx
from pattern import pattern


def pieces():
    whole = pattern(300_000)
    for start in range(0, len(whole), 50_000):
        yield whole[start : start + 50_000]


headers = {"authorization": f"Bearer {os.environ['ECHO_KEY']}"}
with httpx.Client(base_url="https://echo.example.com", headers=headers, timeout=30) as client:
    sink = client.post("/sink", content=pieces()).json()
    with client.stream("GET", "/bytes/200000") as answer:
        downloaded = b"".join(answer.iter_bytes()) == pattern(200_000)
    target = client.get("/x%2Fy?a=1&b=%20").json()["target"]
print(json.dumps({"sink": sink, "downloaded": downloaded, "target": target}))
