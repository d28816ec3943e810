// Whether a row is in a transparency log: a `.tlog-proof` of docs/log.md, verified down to the signature of the log.

import { fromHex, toHex } from './canonical.js';
import { verifyEd25519 } from './signature.js';

/** Why a proof proves nothing. */
export class NotProven extends Error {}

const utf8 = new TextEncoder();

// The bounds of docs/log.md: two verifiers that disagree about them are two truths.
/** The most bytes of a note. */
export const MOST_NOTE = 256 << 10;
const MOST_PROOF = 512 << 10;
const MOST_HASHES = 64;
const MOST_SIGNATURES = 100;
const MOST_EXTENSIONS = 16;
const [LOG, WITNESS] = [1, 4];
const HASH_BYTES = 32;

function need(holds, otherwise) {
  if (!holds) throw new NotProven(otherwise);
}

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

// The bytes of canonical base64; of so many, if it is said how many.
function base64(text, length = null) {
  need(/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text), 'the proof has text that is not base64');
  const raw = atob(text);
  need(btoa(raw) === text, 'the proof has base64 with another spelling than the canonical one');
  need(length === null || raw.length === length, `the proof has ${raw.length} bytes where ${length} belong`);
  return Uint8Array.from(raw, (char) => char.charCodeAt(0));
}

const isSame = (a, b) => a.length === b.length && a.every((byte, index) => byte === b[index]);

function decimal(text) {
  need(/^(0|[1-9][0-9]{0,19})$/.test(text) && BigInt(text) < 2n ** 64n, 'the proof has a number that cannot be read');
  return BigInt(text);
}

const isName = (text) => /^[^\p{White_Space}\p{Cc}+]+$/u.test(text) && utf8.encode(text).length <= 255;

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
  need(index < size, 'the proof names a leaf that the log does not have');
  let [at, last, root, used] = [index, size - 1n, leaf, 0];
  const next = () => {
    need(used < hashes.length, 'the proof has too few hashes');
    used += 1;
    return hashes[used - 1];
  };
  while (last > 0n) {
    if (at % 2n === 1n) root = await sha256(Uint8Array.of(1), next(), root);
    else if (at < last) root = await sha256(Uint8Array.of(1), root, next());
    [at, last] = [at / 2n, last / 2n];
  }
  need(used === hashes.length, 'the proof has too many hashes');
  return root;
}

/** The key of a log or of a witness, written NAME+ID+BASE64. The id must follow from name and key. */
export async function readKey(text) {
  const [name, digits, ...rest] = text.split('+');
  const bytes = base64(rest.join('+'), 33);
  need(isName(name) && [LOG, WITNESS].includes(bytes[0]), 'the key is not one of a log or a witness');
  const id = (await sha256(utf8.encode(`${name}\n`), bytes)).subarray(0, 4);
  need(toHex(id) === digits, 'the id in the key is not that of its name and bytes');
  return { name, id, kind: bytes[0], key: bytes.subarray(1) };
}

// Whether a line below the text of a note is by this key. Throws if it is, and is not valid.
async function isBy({ name, id, kind, key }, signer, bytes, text) {
  if (signer !== name || !isSame(bytes.subarray(0, 4), id)) return false;
  let [signature, signed] = [bytes.subarray(4), utf8.encode(text)];
  if (kind === WITNESS) {
    need(signature.length > 8, 'a cosignature has no time');
    const time = new DataView(signature.buffer, signature.byteOffset).getBigUint64(0);
    need(time > 0n && time < 2n ** 63n, 'the time of a cosignature is not one of 1 to 2^63-1');
    [signature, signed] = [signature.subarray(8), join(utf8.encode(`cosignature/v1\ntime ${time}\n`), signed)];
  }
  const { state, text: told } = await verifyEd25519(key, signed, signature);
  need(state !== 'failed', `the signature of the checkpoint: ${told}`);
  // A browser that cannot verify has proven nothing, and refuted nothing.
  if (state !== 'passed') throw new Error(told);
  return true;
}

/** What a checkpoint says, which all of these keys must have signed; the first is the log's. Returns {origin, size, root}. Throws NotProven. */
export async function openCheckpoint(note, keys) {
  need(note.isWellFormed() && utf8.encode(note).length <= MOST_NOTE && note.endsWith('\n'), 'the checkpoint is no note of at most 256 KiB');
  need(!/[\u0000-\u0009\u000b-\u001f]/.test(note), 'the checkpoint has control characters');
  const end = note.lastIndexOf('\n\n');
  need(end >= 0, 'the checkpoint has no signatures');
  const text = note.slice(0, end + 1);
  const lines = note.slice(end + 2, -1).split('\n');
  need(lines.length <= MOST_SIGNATURES, `the checkpoint has more than ${MOST_SIGNATURES} signatures`);
  const signed = new Set();
  for (const line of lines) {
    const [dash, signer, digits, ...more] = line.split(' ');
    need(dash === '—' && isName(signer ?? '') && digits !== undefined && more.length === 0, 'a line below the checkpoint is not a signature');
    const bytes = base64(digits);
    need(bytes.length > 4, 'a line below the checkpoint has no signature');
    for (const key of keys) if (await isBy(key, signer, bytes, text)) signed.add(key);
  }
  need(keys[0]?.kind === LOG && keys.every((key) => signed.has(key)), 'the log has not signed the checkpoint, or not all whose keys count');
  const [origin, size, root, ...extensions] = text.slice(0, -1).split('\n');
  need(origin === keys[0].name, 'the checkpoint is of another log than the key');
  const found = { origin, size: decimal(size ?? ''), root: base64(root ?? '', HASH_BYTES) };
  need(found.size > 0n || isSame(found.root, await sha256()), 'the checkpoint has no leaves and the root of another tree');
  need(extensions.every(Boolean) && extensions.length <= MOST_EXTENSIONS, 'lines after the root are empty or too many');
  return found;
}

function parse(text) {
  need(text.isWellFormed() && utf8.encode(text).length <= MOST_PROOF, 'the proof is longer than 512 KiB, or no text');
  const end = text.indexOf('\n\n');
  const lines = text.slice(0, Math.max(0, end)).split('\n');
  need(lines.shift() === 'c2sp.org/tlog-proof@v1', 'it is no proof of version 1');
  // Nothing authenticates it.
  if (lines[0]?.startsWith('extra ')) base64(lines.shift().slice('extra '.length));
  const index = lines.shift() ?? '';
  need(index.startsWith('index '), 'the proof names no leaf');
  need(lines.length <= MOST_HASHES, `the proof has more than ${MOST_HASHES} hashes`);
  return { index: decimal(index.slice('index '.length)), hashes: lines.map((line) => base64(line, HASH_BYTES)), note: text.slice(end + 2) };
}

/** Verifies that the row is in the log of this key. Returns the place: {index, size, origin}. Throws NotProven. */
export async function verifyInclusion(row, proof, logKey) {
  const { index, hashes, note } = parse(proof);
  const { origin, size, root } = await openCheckpoint(note, [await readKey(logKey)]);
  const found = await rootOf(await leafHash(row), index, size, hashes);
  need(isSame(found, root), 'the hashes do not lead from this row to the root of the checkpoint');
  return { index, size, origin };
}
