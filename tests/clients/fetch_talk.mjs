// Upload, download and an odd path with fetch.
import { fetchByEnvironment } from "./door.mjs";

const { fetch, fetchOptions } = fetchByEnvironment();
const pattern = (count) => Buffer.from(Array.from({ length: count }, (_, i) => (i * 31 + Math.floor(i / 251)) % 256));
const headers = { authorization: `Bearer ${process.env.ECHO_KEY}` };
const ask = (path, init = {}) => fetch(`https://echo.example.com${path}`, { headers, ...fetchOptions, ...init });

const sink = await (await ask("/sink", { method: "POST", body: pattern(300_000) })).json();
const bytes = Buffer.from(await (await ask("/bytes/200000")).arrayBuffer());
const { target } = await (await ask("/x%2Fy?a=1&b=%20")).json();
console.log(JSON.stringify({ sink, downloaded: bytes.equals(pattern(200_000)), target }));
