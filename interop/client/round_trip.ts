// A round trip by a client whose types are generated from docs/openapi.json.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const { URL: baseUrl, TOKEN: token } = process.env;
const client = createClient<paths>({ baseUrl: baseUrl ?? "", headers: { Authorization: `Bearer ${token}` } });

const submitted = await client.POST("/api/execute", {
  params: { header: { Prefer: "wait=30", "Idempotency-Key": `ts-${Date.now()}` } },
  body: { function: "fee", input: { payment: "pay_ts", amount_minor: 10_000 } },
});
assert.equal(submitted.response.status, 200, JSON.stringify(submitted.error));
const request: components["schemas"]["RequestBody"] | undefined = submitted.data;
assert.deepEqual(request?.output, { fee_minor: 25 });

const written = await client.POST("/api/spans", { body: { spans: [{ entity_type: "note", content: { text: "from TypeScript" } }] } });
const id = written.data?.spans[0]?.id;
assert.ok(id, JSON.stringify(written.error));
const read = await client.GET("/api/spans/{id}", { params: { path: { id } } });
assert.equal(read.data?.entity_type, "note");

const page = await client.GET("/api/timeline", { params: { query: { limit: 5, order: "newest" } } });
assert.ok(page.data?.spans.some((span) => span.id === id));

const missing = await client.GET("/api/spans/{id}", { params: { path: { id: "00000000-0000-4000-8000-00000000dead" } } });
assert.equal(missing.error?.code, "not_found");
assert.equal(missing.error?.request_id, missing.response.headers.get("x-request-id"));

const key = await client.POST("/api/keys", { body: { name: "from TypeScript", permissions: ["spans:read"], days: 1 } });
const other = createClient<paths>({ baseUrl: baseUrl ?? "", headers: { Authorization: `Bearer ${key.data?.token}` } });
assert.equal((await other.GET("/api/spans", {})).response.status, 200);
console.log("the generated client made its round trip");
