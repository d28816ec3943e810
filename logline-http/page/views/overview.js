// What happens now: executions per minute, how long they take, what fails, what it costs, and what waits.

import { rows } from '../api.js';
import { chart } from '../chart.js';
import { h, leftOut, notice, pill, put } from '../dom.js';
import { duration, errorText, full, money, number, short, time, title as titleOf } from '../format.js';
import { to, toSpan } from '../router.js';
import { countWaiting } from './approvals.js';
import { queue, read } from './requests.js';

export const title = () => 'Overview';

const MINUTES = 60;
const MOST = 5000;

/** The value that 95 of 100 do not exceed. */
export function p95(values) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(sorted.length * 0.95) - 1];
}

/** Rows by the minute in which they are dated: one list for each of the last minutes, oldest first. */
export function byMinute(found, now, minutes = MINUTES) {
  const end = Math.floor(now / 60_000);
  const slots = Array.from({ length: minutes }, () => []);
  for (const row of found) {
    const slot = minutes - 1 - (end - Math.floor(time(row.at) / 60_000));
    if (slot >= 0 && slot < minutes) slots[slot].push(row);
  }
  return slots;
}

/** What calls of models have cost, in nanos of each currency. */
export function costs(outcomes) {
  const sums = new Map();
  for (const row of outcomes) {
    const cost = row.metadata?.details?.cost;
    if (typeof cost?.nanos === 'number') sums.set(cost.currency, (sums.get(cost.currency) ?? 0) + cost.nanos);
  }
  return sums;
}

const label = (now, index) => new Date(now - (MINUTES - 1 - index) * 60_000).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });

function charts(executions, outcomes, now) {
  const slots = byMinute(executions, now);
  const recent = slots.flat();
  const failed = recent.filter((row) => row.status === 'error');
  const durations = (list) => list.map((row) => row.duration_ms).filter((ms) => ms !== undefined && ms !== null);
  const paid = byMinute(outcomes, now);
  const [currency, nanos] = [...costs(paid.flat())].sort((a, b) => b[1] - a[1])[0] ?? [null, 0];
  const points = (value, part) => slots.map((slot, index) => ({ label: label(now, index), value: value(slot, index), part: part?.(slot, index) }));
  const rate = recent.length === 0 ? 0 : failed.length / recent.length;
  return [
    chart({ title: 'Executions per minute', value: (recent.length / MINUTES).toFixed(1), note: `${number(recent.length)} in the last hour`, format: number,
      points: points((slot) => slot.length, (slot) => slot.filter((row) => row.status === 'error').length) }),
    chart({ title: 'Duration, p95', value: duration(p95(durations(recent)) ?? undefined), note: '95 of 100 took no longer', format: duration,
      points: points((slot) => p95(durations(slot)) ?? 0) }),
    chart({ title: 'Errors', value: number(failed.length), note: recent.length ? `${(rate * 100).toFixed(1)} % of executions` : 'no executions', format: number,
      points: points((slot) => slot.filter((row) => row.status === 'error').length, (slot) => slot.filter((row) => row.status === 'error').length) }),
    chart({ title: 'Cost of models', value: currency ? money(nanos, currency) : '–', note: currency ? 'recorded with the calls' : 'no call with a price', format: (value) => money(value, currency),
      points: paid.map((slot, index) => ({ label: label(now, index), value: costs(slot).get(currency) ?? 0 })) }),
  ];
}

/** The slowest executions of the last hour, with the way to each. */
function slowest(executions, now) {
  const timed = byMinute(executions, now).flat().filter((row) => typeof row.duration_ms === 'number');
  const found = timed.sort((a, b) => b.duration_ms - a.duration_ms).slice(0, 5);
  return found.length === 0 ? [] : [h('h2', { text: 'Slowest in the last hour' }), h('ul', { class: 'newest' }, found.map((row) => h('li', {},
    h('time', { class: 'quiet', datetime: row.at, title: full(row.at), text: short(row.at) }), h('span', { class: 'cell-type', text: duration(row.duration_ms) }),
    h('a', { href: toSpan(row), text: titleOf(row) }), row.status ? pill(row.status) : h('span'))))];
}

const tile = (name, value, href, kind) => h('a', { class: `tile tile-${kind ?? 'plain'}`, href }, h('span', { class: 'tile-label', text: name }), h('span', { class: 'tile-value', text: value }));

export async function render(content, { session, ending, isOpen }) {
  const tiles = h('section', { class: 'tiles', 'aria-label': 'What waits' });
  const graphs = h('section', { class: 'charts', 'aria-label': 'The last hour' });
  const [newest, slow] = [h('section', { class: 'card' }), h('section', { class: 'card', hidden: true })];
  const left = h('div');
  put(content, tiles, graphs, newest, slow, left);
  put(graphs, charts([], [], Date.now()));
  put(tiles, ['Oldest waits', 'Due now', 'Running', 'Retrying', 'Problems', 'Wait for approval'].map((name) => tile(name, '…', to(['overview']))));

  let [executions, outcomes] = [[], []];
  // What is damaged among them.
  const recorded = [];
  const drawCharts = () => {
    put(graphs, charts(executions, outcomes, Date.now()),
      executions.length >= MOST && h('p', { class: 'quiet', text: `Computed from the newest ${number(MOST)} executions.` }));
    put(slow, slowest(executions, Date.now()));
    slow.hidden = !slow.firstChild;
  };
  const drawNewest = () => {
    const list = [];
    for (let index = 0; index < session.feed.length && list.length < 12; index += 1) list.push(session.feed.at(index));
    put(newest, h('h2', { text: 'Newest' }), list.length === 0
      ? notice('Nothing is recorded yet.', 'What your services submit, and what hosts record, appears here by itself.')
      : h('ul', { class: 'newest' }, list.map((row) => h('li', {},
        h('time', { class: 'quiet', datetime: row.at, title: full(row.at), text: short(row.at) }), h('span', { class: 'cell-type', text: row.entity_type }),
        h('a', { href: toSpan(row), text: titleOf(row) }), row.status ? pill(row.status) : h('span'),
        h('span', { class: row.error ? 'cell-error' : 'quiet', text: errorText(row.error) || (row.did ?? '') })))), h('p', {}, h('a', { href: to(['spans']), text: 'All spans' })));
  };
  const drawTiles = async () => {
    const damaged = [];
    const [open, reports, escalations, proposals] = await Promise.all([read(['running', 'scheduled'], 500, damaged),
      rows('spans', { type: 'error_report', limit: 100 }, 100, damaged), rows('spans', { type: 'escalation_request' }, 100, damaged), countWaiting()]);
    if (!isOpen()) return;
    put(left, leftOut([...recorded, ...damaged]));
    const now = queue(open);
    const problems = [...reports, ...escalations].filter((row) => row.status !== 'closed').length;
    put(tiles, tile('Oldest waits', now.due ? duration(now.oldest) : '–', to(['requests']), now.oldest > 60_000 ? 'bad' : 'plain'),
      tile('Due now', number(now.due), to(['requests'])), tile('Running', number(now.running), to(['requests'])),
      tile('Retrying', number(now.retrying), to(['requests'], { show: 'retrying' }), now.retrying ? 'warn' : 'plain'),
      tile('Problems', number(problems), to(['problems']), problems ? 'warn' : 'plain'),
      tile('Wait for approval', number(proposals), to(['approvals']), proposals ? 'busy' : 'plain'));
  };
  const since = Date.now() - MINUTES * 60_000;
  const isOld = (page) => page.length > 0 && time(page[page.length - 1].at) < since;
  drawNewest();
  const whole = Promise.all([
    rows('timeline', { type: 'execution' }, MOST, recorded, isOld).then((found) => { executions = found; drawCharts(); }),
    rows('timeline', { type: 'provider_execution' }, MOST, recorded, isOld).then((found) => { outcomes = found; drawCharts(); }),
    drawTiles(), session.ready.then(() => isOpen() && drawNewest()),
  ]);

  let [timer, isChanged] = [0, false];
  ending(session.onRow((row) => {
    const list = { execution: executions, provider_execution: outcomes }[row.entity_type];
    list?.unshift(row);
    if (list?.length > MOST) list.pop();
    isChanged = true;
    timer ||= setTimeout(() => { timer = 0; if (isOpen()) { drawNewest(); drawCharts(); } }, 250);
  }));
  const tick = setInterval(() => {
    if (document.hidden) return;
    drawCharts();
    if (isChanged) drawTiles().catch(() => {});
    isChanged = false;
  }, 5000);
  ending(() => { clearInterval(tick); clearTimeout(timer); });
  await whole;
}
