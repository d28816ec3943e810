// The page's modules against the test vectors of docs/vectors: a third implementation of the canonical form, run by Node.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { blake3 } from '../../logline-http/page/blake3.js';
import { NotCanonical, fromHex, jcs, payload, sealedPayload, toHex } from '../../logline-http/page/canonical.js';
import { Parser, pauseBefore } from '../../logline-http/page/events.js';
import { MOST_NOTE, NotProven, leafHash, openCheckpoint, readKey, record, verifyInclusion } from '../../logline-http/page/inclusion.js';
import { verifyEd25519, weakness } from '../../logline-http/page/signature.js';
import { checkLink, hashOf, rolesFor, summary, verify } from '../../logline-http/page/verify.js';
import { keyOf, seal } from './seal.mjs';

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../docs/vectors/${name}.json`, import.meta.url), 'utf8'));
const spans = vectors('spans');
const log = vectors('log');

test('BLAKE3 has the published results around every border of blocks and chunks', () => {
  const all = vectors('blake3');
  assert.ok(all.length > 30);
  for (const { length, hash } of all) {
    assert.equal(toHex(blake3(Uint8Array.from({ length }, (_, index) => index % 251))), hash, `${length} bytes`);
  }
});

test('JCS writes what RFC 8785 asks for', () => {
  for (const { name, input, canonical } of vectors('jcs')) assert.equal(jcs(JSON.parse(input)), canonical, name);
  for (const { ieee754, text } of vectors('numbers')) {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, BigInt(`0x${ieee754}`));
    if (text === null) assert.throws(() => jcs(view.getFloat64(0)), NotCanonical, ieee754);
    else assert.equal(jcs(view.getFloat64(0)), text, ieee754);
  }
});

test('every span of the vectors has its payload, hash and signature, and sealing it here gives the same row', async () => {
  for (const vector of spans) {
    const row = JSON.parse(vector.line);
    assert.equal(payload(row), vector.payload, vector.name);
    assert.equal(hashOf(row), vector.curr_hash, vector.name);
    const checks = await verify(row);
    assert.deepEqual([checks.hash.state, checks.signature.state], ['passed', 'passed'], vector.name);
    const { curr_hash: _hash, signature: _signature, public_key: _key, ...columns } = row;
    assert.equal(jcs(seal(columns, keyOf(vector.seed))), vector.line, vector.name);
  }
});

test('a row that was changed in any column is never verified', async () => {
  const row = JSON.parse(spans.find(({ name }) => name === 'every column').line);
  const other = (value) => (typeof value === 'number' ? value + 1 : typeof value === 'boolean' ? !value : Array.isArray(value) ? [...value, 'x']
    : typeof value === 'object' ? { ...value, x: 1 } : `${value}x`);
  for (const name of Object.keys(row)) {
    const checks = await verify({ ...row, [name]: other(row[name]) }, { versions: [] });
    assert.equal(summary(checks).state, 'failed', name);
  }
  const nested = structuredClone(row);
  nested.input.amount = '120.51';
  assert.equal((await verify(nested)).hash.state, 'failed');
});

test('what was not checked is said, and is no pass', async () => {
  const checks = await verify(JSON.parse(spans[0].line));
  assert.deepEqual([checks.link.state, checks.role.state, checks.inclusion.state], ['unchecked', 'unchecked', 'unchecked']);
  const { state, text } = summary(checks);
  assert.equal(state, 'unchecked');
  assert.ok(!/verified/i.test(text));
});

// The encodings of the eight points of small order, with their second spellings (both signs of x).
const SMALL = [
  '01'.padEnd(64, '0'), `01${'0'.repeat(60)}80`, '00'.repeat(32), `${'0'.repeat(62)}80`, `ec${'ff'.repeat(30)}7f`, `ec${'ff'.repeat(31)}`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
];

test('keys of small order and second spellings of keys are refused before any signature is looked at', async () => {
  for (const digits of SMALL) {
    const key = fromHex(digits, 32);
    assert.match(weakness(key), /weak/, digits);
    // Under such a key this signature of everything holds in lenient implementations.
    assert.equal((await verifyEd25519(key, new Uint8Array(1), new Uint8Array(64))).state, 'failed', digits);
  }
  for (const digits of [`ed${'ff'.repeat(30)}7f`, `ff${'ff'.repeat(30)}7f`]) assert.match(weakness(fromHex(digits, 32)), /canonically/, digits);
});

test('a signature has one spelling', async () => {
  const row = JSON.parse(spans[0].line);
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  const signature = fromHex(row.signature, 64);
  let s = signature.subarray(32).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n) + order;
  for (let index = 32; index < 64; index += 1, s >>= 8n) signature[index] = Number(s & 255n);
  assert.match((await verify({ ...row, signature: toHex(signature) })).signature.text, /not reduced/);
});

test('rows that the form refuses are refused', () => {
  const row = JSON.parse(spans[0].line);
  for (const [name, change] of Object.entries({
    'an unknown column': { extra: 1 }, 'no owner': { owner_id: '' }, 'a number beyond 2^53': { content: 2 ** 53 }, 'a lone surrogate': { content: '\ud800' },
    'a NUL': { content: { '\u0000': 1 } }, 'another form': { v: 2 }, 'a negative version': { seq: -1 }, 'a text for a number': { seq: '0' },
  })) assert.throws(() => payload({ ...row, ...change }), NotCanonical, name);
  let deep = 1;
  for (let level = 0; level < 70; level += 1) deep = [deep];
  assert.throws(() => payload({ ...row, content: deep }), NotCanonical);
});

// What a browser has read already is not seen any more: which of two members counts, which bytes were no UTF-8, and the digits of a number.
const UNSEEN = ['utf8', 'duplicate_key'];
const ROUNDED = ['number 9007199254740991.1', 'number -9007199254740991.00000000000000001'];

test('every invalid row of the vectors is refused', () => {
  let refused = 0;
  const isRefusal = (error) => error instanceof NotCanonical || error instanceof SyntaxError;
  for (const { name, line, error } of vectors('invalid')) {
    if (UNSEEN.includes(error) || ROUNDED.includes(name)) continue;
    assert.throws(() => sealedPayload(JSON.parse(line)), isRefusal, name);
    refused += 1;
  }
  assert.ok(refused > 190, `${refused} lines`);
  const row = JSON.parse(spans[0].line);
  const objects = (count) => Array.from({ length: count - 1 }, () => [1]);
  payload({ ...row, content: objects(32_760) });
  assert.throws(() => payload({ ...row, content: objects(32_760), input: [1] }), /32,760/);
});

test('a link counts by the content of the version before, not by what that version states', () => {
  const key = keyOf(spans[0].seed);
  const draft = { id: '01956a3f-8c00-7000-8000-0000000000aa', entity_type: 'note', who: 'user:a', this: 'note', tenant_id: 'acme', owner_id: 'alice', at: '2026-03-02T09:14:05.000000Z' };
  const first = seal(draft, key);
  const second = seal({ ...draft, name: 'second' }, key, first);
  assert.equal(checkLink(second, [first, second]).state, 'passed');
  assert.equal(checkLink(second, [{ ...first, name: 'changed' }, second]).state, 'failed');
  assert.equal(checkLink(second, [{ ...first, owner_id: 'bob' }, second]).state, 'failed');
  assert.equal(checkLink(second, [second]).state, 'unchecked');
  assert.equal(checkLink(second, null).state, 'unchecked');
  // A second beginning of a chain that has begun.
  assert.equal(checkLink(seal({ ...draft, seq: 3 }, key), [first]).state, 'failed');
});

test('a signer’s role is that of the manifest, or it is not', async () => {
  const [root, publisher, stranger, host] = ['9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', spans[1].seed, 'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7', '01'.repeat(32)].map(keyOf);
  const base = { who: 'x', this: 'x', owner_id: 'o', at: '2026-03-02T09:14:05.000000Z' };
  const manifest = seal({ ...base, id: '00000000-0000-4000-8000-0000000000aa', entity_type: 'manifest', tenant_id: 'system', metadata: {
    version: 3, root: { keys: [root.public_key], threshold: 1 }, authorities: [{ key: publisher.public_key, role: 'publisher', tenants: ['*'] }] } }, root);
  const trust = { manifest, delegations: [{ key: host.public_key, not_before: '2026-01-01T00:00:00.000000Z', expires: '2026-06-01T00:00:00.000000Z' }], has_all_delegations: true,
    types: { function: { first: ['publisher'], later: ['publisher'] }, execution: { first: ['runtime'], later: ['runtime'] } }, other_types: { first: ['member', 'publisher', 'runtime'], later: ['member', 'publisher', 'runtime'] }, reserved_prefix: 'logline_' };
  const role = async (draft, key, known = trust) => (await verify(seal({ ...base, id: '01956a3f-8c00-7000-8000-0000000000ab', tenant_id: 'acme', ...draft }, key), { trust: known })).role.state;
  assert.equal(await role({ entity_type: 'function' }, publisher), 'passed');
  assert.equal(await role({ entity_type: 'function' }, stranger), 'failed');
  assert.equal(await role({ entity_type: 'function' }, host), 'failed');
  // `*` is every tenant but system.
  assert.equal(await role({ entity_type: 'function', tenant_id: 'system' }, publisher), 'failed');
  assert.equal(await role({ entity_type: 'execution' }, host), 'passed');
  assert.equal(await role({ entity_type: 'execution', at: '2026-06-01T00:00:00.000000Z' }, host), 'failed');
  assert.equal(await role({ entity_type: 'logline_new' }, publisher), 'failed');
  assert.equal(await role({ entity_type: 'toString' }, publisher), 'passed');
  // A manifest that was changed on its way says nothing.
  const forged = structuredClone(manifest);
  forged.metadata.authorities.push({ key: stranger.public_key, role: 'publisher', tenants: ['*'] });
  assert.equal(await role({ entity_type: 'function' }, stranger, { ...trust, manifest: forged }), 'unchecked');
  const { curr_hash: _hash, signature: _signature, ...sealed } = manifest;
  const ended = seal({ ...sealed, metadata: { ...manifest.metadata, ended: [{ key: publisher.public_key, logs: [] }] } }, root);
  assert.equal(await role({ entity_type: 'function' }, publisher, { ...trust, manifest: ended }), 'unchecked');
  assert.deepEqual(rolesFor({ entity_type: 'approval', metadata: { subject: { tenant: 'system', id: manifest.id } } }, trust), ['root']);
});

test('a row is in the log, and no other row is', async () => {
  for (const [index, { line, record: digits, hash }] of log.leaves.entries()) {
    const row = JSON.parse(line);
    assert.equal(toHex(record(row)), digits);
    assert.equal(Buffer.from(await leafHash(row)).toString('base64'), hash);
    if (index === log.index) assert.deepEqual(await verifyInclusion(row, log.proof, log.log_key), { index: 4n, size: 7n, origin: 'log.invalid/vectors' });
    else await assert.rejects(verifyInclusion(row, log.proof, log.log_key), /do not lead/);
  }
  const row = JSON.parse(log.leaves[log.index].line);
  for (const [from, to] of [['index 4', 'index 5'], ['\n7\n', '\n8\n'], ['n5zGYa1X', 'n5zGYa1Y'], ['jPf4EtCT', 'jPf4EtCU'], ['— log.invalid', '— log.other']]) {
    await assert.rejects(verifyInclusion(row, log.proof.replace(from, to), log.log_key), undefined, `${from} → ${to}`);
  }
  await assert.rejects(verifyInclusion(row, log.proof, log.witness_key));
});

const isOpened = (note, keys) => openCheckpoint(note, keys).then(() => true, (error) => {
  assert.ok(error instanceof NotProven, error);
  return false;
});

test('every bound of a checkpoint is where the vectors have it', async () => {
  const keys = await Promise.all([log.log_key, log.witness_key].map(readKey));
  const all = vectors('checkpoints');
  for (const { name, note, is_accepted } of all) assert.equal(await isOpened(note, keys), is_accepted, name);
  assert.ok(all.length >= 42 && new Set(all.map((vector) => vector.is_accepted)).size === 2);
  // Both have to have signed, whatever else the note has.
  const [text, lines] = log.checkpoint.split('\n\n');
  for (const line of lines.split('\n').filter(Boolean)) assert.equal(await isOpened(`${text}\n\n${line}\n`, keys), false, line);
});

test('a note has at most 256 KiB', async () => {
  const keys = [await readKey(log.log_key)];
  const bytes = (value) => new TextEncoder().encode(value).length;
  const left = MOST_NOTE - bytes(log.checkpoint) - bytes('— other \n');
  // Base64 comes in fours, so the name takes what is left of them.
  const line = `— other${'x'.repeat(left % 4)} ${'A'.repeat(left - (left % 4))}\n`;
  assert.equal(bytes(log.checkpoint + line), MOST_NOTE);
  assert.equal(await isOpened(log.checkpoint + line, keys), true);
  assert.equal(await isOpened(log.checkpoint + line.replace('other', 'others'), keys), false);
});

test('a proof and a key of a log have one spelling', async () => {
  const row = JSON.parse(log.leaves[log.index].line);
  const holds = (proof, key = log.log_key) => verifyInclusion(row, proof, key).then(() => true, (error) => {
    assert.ok(error instanceof NotProven, error);
    return false;
  });
  const { proof } = log;
  const hash = proof.split('\n')[2];
  const many = `c2sp.org/tlog-proof@v1\nindex 4\n${`${hash}\n`.repeat(65)}\n${log.checkpoint}`;
  for (const [name, found, key] of [
    ['another first line', proof.replace('@v1', '@v2')], ['a number with a zero before it', proof.replace('index 4', 'index 04')],
    ['a number with a sign', proof.replace('index 4', 'index +4')], ['a number beyond 64 bits', proof.replace('index 4', `index ${2n ** 64n + 4n}`)],
    ['a hash without its padding', proof.replace(hash, hash.slice(0, -1))], ['a hash of other bits', proof.replace(hash, `${hash.slice(0, -2)}p=`)],
    ['a hash of 33 bytes', proof.replace(hash, `AAAA${hash}`)], ['a hash too many', proof.replace(hash, `${hash}\n${hash}`)],
    ['a hash too few', proof.replace(`${hash}\n`, '')], ['an extra line that is no base64', proof.replace('index', 'extra !\nindex')],
    ['65 hashes', many], ['too many bytes', proof.replace('index', `extra ${'A'.repeat(512 << 10)}\nindex`)],
    ['the key has another id', proof, log.log_key.replace('+9f9cc661+', '+9f9cc662+')], ['the key has no id', proof, log.log_key.replace('+9f9cc661+', '++')],
    ['the key is longer', proof, `${log.log_key}AAAA`], ['the key is of a witness', proof, log.witness_key],
  ]) assert.equal(await holds(found, key), false, name);
  assert.equal(await holds(proof.replace('index', 'extra AAAA\nindex')), true);
});

test('where the browser has no Ed25519 an inclusion is not checked, which is no failure', async () => {
  const row = JSON.parse(log.leaves[log.index].line);
  const original = crypto.subtle.importKey;
  crypto.subtle.importKey = () => Promise.reject(new DOMException('not here', 'NotSupportedError'));
  try {
    const { signature, inclusion } = await verify(row, { proof: { proof: log.proof, log_key: log.log_key } });
    assert.deepEqual([signature.state, inclusion.state], ['unchecked', 'unchecked']);
  } finally {
    crypto.subtle.importKey = original;
  }
});

test('events are read as a browser reads them, whatever the pieces in which they arrive', () => {
  const stream = ': alive\nid: a\n\nid: b\r\nevent: span\r\ndata: {"name":"a\\nb"}\r\n\r\nevent: end\ndata: {"code":"draining"}\n\nid: torn';
  for (const size of [1, 2, 3, 7, 1000]) {
    const parser = new Parser();
    const found = [];
    for (let from = 0; from < stream.length; from += size) found.push(...parser.push(stream.slice(from, from + size)));
    assert.deepEqual(found, [{ id: 'a', event: 'message', data: null }, { id: 'b', event: 'span', data: '{"name":"a\\nb"}' }, { id: null, event: 'end', data: '{"code":"draining"}' }], `pieces of ${size}`);
  }
});

test('pauses grow, end, and are not the same for all clients', () => {
  assert.deepEqual([1, 2, 3, 20].map((tries) => pauseBefore(tries, 1)), [500, 1000, 2000, 30_000]);
  assert.ok(pauseBefore(3, 0) < pauseBefore(3, 1));
});
