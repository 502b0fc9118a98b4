"""Upload, download and an odd path with requests."""

import json
import os

import requests
from pattern import pattern

session = requests.Session()
session.headers["authorization"] = f"Bearer {os.environ['ECHO_KEY']}"
base = "https://echo.example.com"
sink = session.post(f"{base}/sink", data=pattern(300_000), timeout=30).json()
with session.get(f"{base}/bytes/200000", stream=True, timeout=30) as answer:
    downloaded = b"".join(answer.iter_content(8192)) == pattern(200_000)
target = session.get(f"{base}/x%2Fy?a=1&b=%20", timeout=30).json()["target"]
print(json.dumps({"sink": sink, "downloaded": downloaded, "target": target}))
