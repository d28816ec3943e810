// The numbers that the page computes from rows: charts, queue, causes and the life of a request. Run by Node.

import assert from 'node:assert/strict';
import { test } from 'node:test';

// What the modules ask a browser for when they are loaded. None of what is tested here draws anything.
const element = () => ({ append() {}, setAttribute() {}, addEventListener() {}, replaceChildren() {} });
Object.assign(globalThis, {
  document: { baseURI: 'http://127.0.0.1/', hidden: false, createElement: element, createElementNS: element, getElementById: element, addEventListener() {} },
  location: new URL('http://127.0.0.1/'),
  sessionStorage: { getItem: () => null },
  addEventListener() {},
});
const views = '../../logline-http/page/views';
const { byMinute, costs, p95 } = await import(`${views}/overview.js`);
const { queue } = await import(`${views}/requests.js`);
const { causes } = await import(`${views}/problems.js`);
const { life } = await import(`${views}/request.js`);
const { unbroken } = await import(`${views}/span.js`);

const NOW = Date.parse('2026-03-01T12:00:30Z');
const at = (seconds) => new Date(NOW + seconds * 1000).toISOString();

test('95 of 100 values do not exceed the 95th', () => {
  assert.equal(p95([]), null);
  assert.equal(p95([7]), 7);
  assert.equal(p95(Array.from({ length: 100 }, (_, index) => 100 - index)), 95);
  assert.equal(p95([...Array(19).fill(1), 900]), 1);
});

test('rows stand in the minute in which they are dated, and older ones nowhere', () => {
  const slots = byMinute([at(0), at(-29), at(-31), at(-30 - 59 * 60), at(-31 - 59 * 60), at(60)].map((when) => ({ at: when })), NOW);
  assert.equal(slots.length, 60);
  assert.deepEqual([slots[59].length, slots[58].length, slots[0].length], [2, 1, 1]);
  assert.equal(slots.flat().length, 4, 'what is older than an hour or still to come is left out');
});

test('costs are summed for each currency, and what has none costs nothing', () => {
  const cost = (nanos, currency) => ({ metadata: { details: { cost: { nanos, currency } } } });
  assert.deepEqual([...costs([cost(5, 'USD'), cost(7, 'EUR'), cost(6, 'USD'), {}, { metadata: { details: {} } }])], [['USD', 11], ['EUR', 7]]);
});

test('the queue counts what is due, what comes later, and how long the oldest has waited', () => {
  const request = (status, due, did = 'requested') => ({ status, did, at: at(-600), metadata: { due_at: due } });
  const open = [request('scheduled', at(-90)), request('scheduled', at(-5), 'failed'), request('scheduled', at(60), 'failed'), request('running'), { status: 'scheduled', did: 'requested', at: at(-10) }];
  assert.deepEqual(queue(open, NOW), { due: 3, later: 1, running: 1, retrying: 2, oldest: 90_000 });
  assert.deepEqual(queue([], NOW), { due: 0, later: 0, running: 0, retrying: 0, oldest: 0 });
});

test('failures are counted by cause, the most frequent first', () => {
  const failed = (code, when) => ({ at: when, error: code && { code } });
  const found = causes([failed('a', at(-3)), failed('b', at(-2)), failed('b', at(-9)), failed(null, at(-1))]);
  assert.deepEqual(found.map(({ code, count }) => [code, count])[0], ['b', 2]);
  assert.equal(found[0].last.at, at(-2));
  assert.equal(found.length, 3);
});

test('a request that waits, fails, pauses, is lost and is carried out has a life without gaps', () => {
  const version = (seq, seconds, status, did, metadata = {}) => ({ seq, at: at(seconds), status, did, metadata });
  const versions = [
    version(0, -100, 'scheduled', 'requested'), version(1, -90, 'running', 'claimed', { attempt: 1 }),
    version(2, -80, 'scheduled', 'failed', { attempt: 1, due_at: at(-60) }), version(3, -50, 'running', 'claimed', { attempt: 2 }),
    version(4, -20, 'running', 'claimed', { attempt: 3 }), version(5, -10, 'complete', 'completed', { attempt: 3 }),
  ];
  const parts = life(versions, NOW);
  assert.deepEqual(parts.map(({ kind }) => kind), ['wait', 'run', 'pause', 'wait', 'lost', 'run']);
  parts.slice(1).forEach((part, index) => assert.equal(part.from, parts[index].until, `part ${index + 1}`));
  assert.deepEqual(parts.filter(({ kind }) => kind !== 'wait' && kind !== 'pause').map(({ attempt }) => attempt), [1, 2, 3]);
  const open = life(versions.slice(0, 2), NOW);
  assert.equal(open[1].until, null, 'what goes on has no end');
});

test('of versions with a gap, those after it are the life that is shown', () => {
  const seqs = (list) => unbroken(list.map((seq) => ({ seq }))).map(({ seq }) => seq);
  assert.deepEqual(seqs([0, 1, 2]), [0, 1, 2]);
  assert.deepEqual(seqs([0, 1, 7, 8]), [7, 8]);
  assert.deepEqual(seqs([4]), [4]);
  assert.deepEqual(seqs([]), []);
});
