// Finds the pinned packages, and the way out: Node 20's own fetch reads no proxy variables.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.TOLLGATE_TEST_CLIENTS}/package.json`);

export const load = (name) => require(name);

export function fetchByEnvironment() {
  if (!process.env.HTTPS_PROXY) return { fetch: globalThis.fetch, fetchOptions: {} };
  const undici = require("undici");
  return { fetch: undici.fetch, fetchOptions: { dispatcher: new undici.EnvHttpProxyAgent() } };
}
