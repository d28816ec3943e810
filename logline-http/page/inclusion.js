// Whether a row is in a transparency log: a `.tlog-proof` of docs/log.md, verified down to the signature of the log.

import { fromHex } from './canonical.js';
import { verifyEd25519 } from './signature.js';

/** Why a proof proves nothing. */
export class NotProven extends Error {}

const utf8 = new TextEncoder();
const MOST_HASHES = 64;
const LOG_KEY = 1;

function join(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest('SHA-256', join(...parts)));

function base64(text) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw new NotProven('the proof has text that is not base64');
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

const isSame = (a, b) => a.length === b.length && a.every((byte, index) => byte === b[index]);

function decimal(text) {
  if (!/^(0|[1-9][0-9]{0,15})$/.test(text ?? '')) throw new NotProven('the proof has a number that cannot be read');
  return Number(text);
}

/** The record of 181 bytes under which a row is entered. */
export function record(row) {
  const number = new Uint8Array(4);
  new DataView(number.buffer).setUint32(0, row.seq);
  const parts = [
    Uint8Array.of(1), fromHex(row.id.replaceAll('-', ''), 16), number, fromHex(row.curr_hash, 32),
    row.prev_hash ? fromHex(row.prev_hash, 32) : new Uint8Array(32), fromHex(row.public_key, 32), fromHex(row.signature, 64),
  ];
  if (parts.includes(null)) throw new NotProven('the row has an id, a hash or a seal that cannot be read');
  return join(...parts);
}

/** The hash of a leaf. */
export const leafHash = (row) => sha256(Uint8Array.of(0), record(row));

// The root of the tree of `size` leaves, from the hash of leaf `index` and its path (RFC 6962, section 2.1.1). Every hash must be used.
async function rootOf(leaf, index, size, hashes) {
  if (index >= size) throw new NotProven('the proof names a leaf that the log does not have');
  let [at, last, root, used] = [index, size - 1, leaf, 0];
  const next = () => {
    if (used === hashes.length) throw new NotProven('the proof has too few hashes');
    used += 1;
    return hashes[used - 1];
  };
  while (last > 0) {
    if (at % 2 === 1) root = await sha256(Uint8Array.of(1), next(), root);
    else if (at < last) root = await sha256(Uint8Array.of(1), root, next());
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  if (used !== hashes.length) throw new NotProven('the proof has too many hashes');
  return root;
}

function parse(text) {
  const cut = text.indexOf('\n\n');
  const lines = text.slice(0, cut).split('\n');
  if (cut < 0 || lines.shift() !== 'c2sp.org/tlog-proof@v1') throw new NotProven('it is no proof of version 1');
  if (lines[0]?.startsWith('extra ')) lines.shift();
  const index = lines.shift() ?? '';
  if (!index.startsWith('index ') || lines.length > MOST_HASHES) throw new NotProven('the proof has another shape');
  const note = text.slice(cut + 2);
  const end = note.indexOf('\n\n');
  const [origin, size, root, ...more] = note.slice(0, end).split('\n');
  if (end < 0 || more.length > 0) throw new NotProven('the checkpoint has another shape');
  const signatures = note.slice(end + 2).split('\n').filter((line) => line.startsWith('— ')).map((line) => line.slice(2).split(' '));
  return {
    index: decimal(index.slice(6)), hashes: lines.map(base64), origin, size: decimal(size), root: base64(root ?? ''),
    signed: utf8.encode(note.slice(0, end + 1)), signatures,
  };
}

// The key of a log, written NAME+ID+BASE64. The id must follow from name and key.
async function readKey(text) {
  const [name, , ...rest] = text.split('+');
  const bytes = base64(rest.join('+'));
  if (bytes[0] !== LOG_KEY || bytes.length !== 33) throw new NotProven('the key of the log has a type that is not known');
  const id = (await sha256(utf8.encode(`${name}\n`), bytes)).subarray(0, 4);
  return { name, id, key: bytes.subarray(1) };
}

/** Verifies that the row is in the log of this key. Returns the place: {index, size, origin}. Throws NotProven. */
export async function verifyInclusion(row, proof, logKey) {
  const parsed = parse(proof);
  const { name, id, key } = await readKey(logKey);
  if (parsed.origin !== name) throw new NotProven('the checkpoint is of another log than the key');
  const root = await rootOf(await leafHash(row), parsed.index, parsed.size, parsed.hashes);
  if (!isSame(root, parsed.root)) throw new NotProven('the hashes do not lead from this row to the root of the checkpoint');
  for (const [signer, text] of parsed.signatures) {
    const bytes = base64(text ?? '');
    if (signer !== name || !isSame(bytes.subarray(0, 4), id)) continue;
    const result = await verifyEd25519(key, parsed.signed, bytes.subarray(4));
    if (result.state === 'passed') return { index: parsed.index, size: parsed.size, origin: parsed.origin };
    throw new NotProven(`the signature of the checkpoint: ${result.text}`);
  }
  throw new NotProven('the log has not signed the checkpoint');
}
