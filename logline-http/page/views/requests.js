// Requests by what they wait for: what is open, how old the queue is, and what has ended badly.

import { rows } from '../api.js';
import { h, later, leftOut, notice, pill, put } from '../dom.js';
import { duration, errorText, full, number, relative, time, title as titleOf } from '../format.js';
import { restate, toSpan } from '../router.js';

export const title = () => 'Requests';

const MOST = 500;
const TABS = [
  { name: 'open', label: 'Open', statuses: ['running', 'scheduled'] }, { name: 'retrying', label: 'Retrying', statuses: ['scheduled'] },
  { name: 'failed', label: 'Failed', statuses: ['error', 'dead'] }, { name: 'cancelled', label: 'Cancelled', statuses: ['cancelled'] },
  { name: 'complete', label: 'Complete', statuses: ['complete'] },
];

const dueOf = (row) => time(row.metadata?.due_at ?? row.at);

/** The state of the queue from the last versions of open requests: {due, oldest, later, retrying, running}. */
export function queue(open, now = Date.now()) {
  const scheduled = open.filter((row) => row.status === 'scheduled');
  const due = scheduled.filter((row) => dueOf(row) <= now);
  return {
    due: due.length, later: scheduled.length - due.length, running: open.filter((row) => row.status === 'running').length,
    retrying: scheduled.filter((row) => row.did === 'failed').length,
    oldest: due.length === 0 ? 0 : now - Math.min(...due.map(dueOf)),
  };
}

/** Reads the last versions of requests with one of these statuses. */
export const read = async (statuses, most, damaged) =>
  (await Promise.all(statuses.map((status) => rows('requests', { status }, most, damaged)))).flat();

function reason(row) {
  if (row.status === 'running') return `attempt ${row.metadata?.attempt}, lease until ${full(row.metadata?.lease_until)}`;
  if (row.status !== 'scheduled') return errorText(row.error) || `${row.did ?? ''} ${relative(row.at)}`;
  const due = row.metadata?.due_at;
  const failed = row.did === 'failed' ? `attempt ${row.metadata?.attempt} failed (${errorText(row.error) || 'see its record'}); ` : '';
  if (due && time(due) > Date.now()) return `${failed}${row.did === 'failed' ? 'tried again' : 'due'} ${relative(due)}`;
  return `${failed}due ${relative(due ?? row.at)}, waits for a worker`;
}

const item = (row) => h('li', { class: 'request' },
  h('a', { href: toSpan(row), text: titleOf(row) }), pill(row.status), h('span', { class: 'request-why', text: reason(row) }),
  h('span', { class: 'quiet', text: row.owner_id }), h('time', { class: 'quiet', datetime: row.at, text: relative(row.at) }));

export async function render(content, { route, session, ending, isOpen }) {
  let tab = TABS.find((each) => each.name === route.params.show) ?? TABS[0];
  const tabs = h('div', { class: 'quick', role: 'group', 'aria-label': 'Which requests' });
  const queueRoom = h('section', { class: 'tiles', 'aria-label': 'The queue' });
  const list = h('div');
  put(content, queueRoom, tabs, list);

  const load = async () => {
    const damaged = [];
    const open = await read(['running', 'scheduled'], MOST, damaged);
    const asked = tab;
    const found = asked.name === 'open' ? open
      : asked.name === 'retrying' ? open.filter((row) => row.did === 'failed') : await read(asked.statuses, 200, damaged);
    if (!isOpen() || asked !== tab) return;
    const now = queue(open);
    const many = open.length >= MOST ? ` of the first ${number(MOST)} of each status` : '';
    put(queueRoom, [['Due now', number(now.due)], ['Oldest waits', now.due ? duration(now.oldest) : '–'], ['Running', number(now.running)],
      ['Due later', number(now.later)], ['Retrying', number(now.retrying)]]
      .map(([label, value]) => h('div', { class: 'tile' }, h('span', { class: 'tile-label', text: label }), h('span', { class: 'tile-value', text: value }))));
    put(list, found.length === 0
      ? notice('No such request.', tab.name === 'open' ? 'The queue is empty: what is asked for by POST /api/execute or logline request submit stands here.' : 'None that this token may see.')
      : h('ul', { class: 'requests' }, found.sort((a, b) => (a.at < b.at ? 1 : -1)).map(item)),
    many && h('p', { class: 'quiet', text: `Counted${many}.` }), leftOut(damaged));
    session.announce(`${number(found.length)} ${tab.label.toLowerCase()} requests.`);
  };
  const drawTabs = () => put(tabs, TABS.map((each) => h('button', { type: 'button', class: 'chip', 'aria-pressed': String(each === tab),
    onclick: () => { tab = each; restate(['requests'], { show: each.name }); drawTabs(); load(); }, text: each.label })));
  drawTabs();
  await load();
  const soon = later(() => load().catch(() => {}), 400);
  ending(session.onRow((row) => { if (row.entity_type === 'request') soon(); }));
  const tick = setInterval(() => { if (!document.hidden && !list.contains(document.activeElement)) load().catch(() => {}); }, 15_000);
  ending(() => { clearInterval(tick); soon.cancel(); });
}
