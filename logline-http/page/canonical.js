// Canonical form v1 of docs/canonical-form.md: JCS (RFC 8785) and the payload of a row.

const COLUMNS = new Map(Object.entries({
  v: 'number', id: 'string', seq: 'number', entity_type: 'string', who: 'string', did: 'string', this: 'string', at: 'string',
  parent_id: 'string', related_to: 'array', owner_id: 'string', tenant_id: 'string', visibility: 'string', status: 'string',
  is_deleted: 'boolean', name: 'string', description: 'string', code: 'string', language: 'string', runtime: 'string',
  input: 'any', output: 'any', error: 'any', content: 'any', duration_ms: 'number', trace_id: 'string', prev_hash: 'string',
  curr_hash: 'string', signature: 'string', public_key: 'string', metadata: 'any',
}));
const REQUIRED = ['id', 'entity_type', 'who', 'this', 'at', 'owner_id', 'tenant_id'];
const NAMES = ['entity_type', 'tenant_id', 'owner_id', 'status', 'trace_id'];
const VISIBILITIES = ['private', 'tenant', 'public'];
// Columns in hexadecimal digits, and how many bytes they have.
const DIGITS = { curr_hash: 32, prev_hash: 32, public_key: 32, signature: 64 };
const MOST_DEPTH = 64;
const MOST_NAME_BYTES = 256;
const MOST_CONTAINERS = 32_760;
const NIL = '00000000-0000-0000-0000-000000000000';

/** Why something has no canonical form. */
export class NotCanonical extends Error {}

function text(value) {
  if (!value.isWellFormed()) throw new NotCanonical('a text has a lone surrogate, which no UTF-8 has');
  return JSON.stringify(value);
}

function number(value) {
  if (!Number.isFinite(value)) throw new NotCanonical('a number is not finite');
  // ECMAScript prints numbers as RFC 8785 asks for, and -0 as 0.
  return JSON.stringify(value);
}

// Array.prototype.sort compares texts by UTF-16 code units, as RFC 8785 does.
function members(object, depth) {
  const parts = Object.keys(object).sort().map((name) => `${text(name)}:${write(object[name], depth + 1)}`);
  return `{${parts.join(',')}}`;
}

function write(value, depth) {
  switch (typeof value) {
    case 'string': return text(value);
    case 'number': return number(value);
    case 'boolean': return String(value);
    case 'object':
      if (value === null) return 'null';
      if (depth > MOST_DEPTH) throw new NotCanonical(`it is nested deeper than ${MOST_DEPTH} levels`);
      if (Array.isArray(value)) return `[${value.map((item) => write(item, depth + 1)).join(',')}]`;
      return members(value, depth);
    default: throw new NotCanonical(`${typeof value} is not JSON`);
  }
}

/** A JSON value as RFC 8785 writes it. Throws NotCanonical if it cannot be written. */
export const jcs = (value) => write(value, 1);

// The head of a value, for an error.
const plainly = (value) => JSON.stringify(value).slice(0, 60);

function isOfType(value, type) {
  if (type === 'any') return true;
  if (type === 'array') return Array.isArray(value);
  return typeof value === type;
}

const isUuid = (value) => typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value);

// A time as every row has it when it is read back: in UTC, with six digits behind the point.
function isTime(value) {
  const [, seconds] = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{6}Z$/.exec(value) ?? [];
  const at = new Date(`${seconds}Z`);
  return seconds !== undefined && !seconds.startsWith('0000') && !Number.isNaN(at.getTime()) && at.toISOString().startsWith(seconds);
}

// The input rules of docs/canonical-form.md, as far as a browser sees them: what JSON itself must be was read before.
function check(row) {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) throw new NotCanonical('a span is a JSON object');
  for (const [name, value] of Object.entries(row)) {
    if (value === null) continue;
    const type = COLUMNS.get(name);
    if (type === undefined) throw new NotCanonical(`unknown column ${text(name)}`);
    if (!isOfType(value, type)) throw new NotCanonical(`${name} must be ${type === 'array' ? 'a list' : `a ${type}`}`);
  }
  for (const name of REQUIRED) {
    if (!row[name] || row[name] === NIL) throw new NotCanonical(`${name} is required and must not be empty`);
  }
  for (const name of NAMES) {
    const value = row[name] ?? '';
    if (new TextEncoder().encode(value).length > MOST_NAME_BYTES) throw new NotCanonical(`${name} is longer than ${MOST_NAME_BYTES} bytes`);
    if (/\p{Cc}/u.test(value)) throw new NotCanonical(`${name} has a control character`);
  }
  for (const value of [row.id, row.parent_id ?? row.id, ...(row.related_to ?? [])]) {
    if (!isUuid(value)) throw new NotCanonical(`${plainly(value)} is not a uuid`);
  }
  for (const [name, length] of Object.entries(DIGITS)) {
    const value = row[name] ?? null;
    if (value !== null && fromHex(value, length) === null) throw new NotCanonical(`${name} is not lower-case hex of ${length} bytes`);
  }
  if (!isTime(row.at)) throw new NotCanonical('at is not a time as rows have it');
  if (!VISIBILITIES.includes(row.visibility ?? 'private')) throw new NotCanonical(`visibility ${plainly(row.visibility)} is unknown`);
  if ((row.seq ?? 0) === 0 && (row.prev_hash ?? null) !== null) throw new NotCanonical('seq 0 cannot have a prev_hash');
  if ((row.v ?? 1) !== 1) throw new NotCanonical(`canonical form v${row.v} is not supported`);
  for (const name of ['seq', 'duration_ms']) {
    const value = row[name] ?? 0;
    if (!Number.isInteger(value) || value < 0 || value > 2147483647) throw new NotCanonical(`${name} is out of range`);
  }
  const containers = bounded(row) - 1 - (row.related_to?.length > 0 ? 1 : 0);
  if (containers > MOST_CONTAINERS) throw new NotCanonical('it has more than 32,760 arrays and objects');
}

// Beyond these numbers readers disagree about which integer is meant, and U+0000 cannot be stored everywhere.
// Returns how many arrays and objects with members there are.
function bounded(value, depth = 1) {
  if (typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER) {
    throw new NotCanonical('a number is beyond ±9007199254740991');
  }
  if (typeof value === 'string' && value.includes('\u0000')) throw new NotCanonical('a text has U+0000');
  if (typeof value !== 'object' || value === null) return 0;
  if (depth > MOST_DEPTH) throw new NotCanonical(`it is nested deeper than ${MOST_DEPTH} levels`);
  const found = Object.entries(value);
  return found.reduce((count, [name, item]) => count + bounded(name) + bounded(item, depth + 1), found.length > 0 ? 1 : 0);
}

/** The text that is hashed: every column that is present, except `curr_hash` and `signature`. */
export function payload(row) {
  check(row);
  const hashed = { v: 1, seq: 0, visibility: 'private', is_deleted: false };
  for (const [name, value] of Object.entries(row)) {
    if (value === null || name === 'curr_hash' || name === 'signature') continue;
    if (name === 'related_to' && value.length === 0) continue;
    hashed[name] = value;
  }
  for (const name of ['id', 'parent_id']) {
    if (hashed[name] !== undefined) hashed[name] = hashed[name].toLowerCase();
  }
  if (hashed.related_to) hashed.related_to = hashed.related_to.map((id) => String(id).toLowerCase());
  return jcs(hashed);
}

/** The payload of a row that must have a whole seal. */
export function sealedPayload(row) {
  const missing = ['curr_hash', 'signature', 'public_key'].find((name) => (row?.[name] ?? null) === null);
  if (missing) throw new NotCanonical(`${missing} is missing: an incomplete seal proves nothing`);
  return payload(row);
}

/** The bytes that an Ed25519 key signs: DSSE's encoding of a type and a body. */
export function dsse(type, body) {
  const utf8 = new TextEncoder();
  const head = utf8.encode(`DSSEv1 ${utf8.encode(type).length} ${type} ${body.length} `);
  const all = new Uint8Array(head.length + body.length);
  all.set(head);
  all.set(body, head.length);
  return all;
}

export const SPAN_TYPE = 'application/vnd.logline.span.v1';

/** Bytes as lower-case hexadecimal digits. */
export const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** The bytes of lower-case hexadecimal digits; null if the text is anything else. */
export function fromHex(digits, length) {
  if (typeof digits !== 'string' || digits.length !== length * 2 || !/^[0-9a-f]*$/.test(digits)) return null;
  return Uint8Array.from({ length }, (_, index) => parseInt(digits.slice(index * 2, index * 2 + 2), 16));
}
