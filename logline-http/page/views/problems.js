// What asks for a person: escalations, error reports, violated policies, and failures by their cause.

import { rows } from '../api.js';
import { h, later, leftOut, notice, pill, put, table } from '../dom.js';
import { errorText, number, relative, title as titleOf } from '../format.js';
import { to, toSpan } from '../router.js';

export const title = () => 'Problems';

const MOST = 200;
const TYPES = [
  { type: 'escalation_request', heading: 'Escalations', none: 'Nothing was escalated to a person.' },
  { type: 'error_report', heading: 'Error reports', none: 'No error report is open. The policy error_report writes them: see docs/policies.md.' },
  { type: 'policy_violation', heading: 'Violations', none: 'No policy was violated.' },
];

/** Failed executions by their cause: [{code, count, last}], the most frequent first. */
export function causes(failed) {
  const found = new Map();
  for (const row of failed) {
    const code = row.error?.code ?? errorText(row.error) ?? 'unknown';
    const known = found.get(code) ?? { code, count: 0, last: row };
    known.count += 1;
    if (known.last.at < row.at) known.last = row;
    found.set(code, known);
  }
  return [...found.values()].sort((a, b) => b.count - a.count);
}

const told = (row) => errorText(row.error) || (typeof row.content === 'string' ? row.content : row.content?.text ?? row.content?.reason)
  || row.description || row.metadata?.reason || JSON.stringify(row.metadata ?? row.content ?? '');

const report = (row) => h('li', { class: 'request' }, h('a', { href: toSpan(row), text: titleOf(row) }), row.status && pill(row.status),
  h('span', { class: 'request-why', text: String(told(row)) }), h('span', { class: 'quiet', text: row.owner_id }), h('time', { class: 'quiet', datetime: row.at, text: relative(row.at) }));

export async function render(content, { session, ending, isOpen }) {
  put(content, h('p', { class: 'quiet', text: 'Reading …' }));
  const load = async () => {
    const damaged = [];
    const list = (params, most) => rows('spans', params, most, damaged);
    const [failed, ...reports] = await Promise.all([list({ type: 'execution', status: 'error' }, 500), ...TYPES.map(({ type }) => list({ type }, MOST))]);
    if (!isOpen()) return;
    const found = causes(failed);
    put(content,
      h('section', { class: 'card' }, h('h2', { text: 'Failures by cause' }), found.length === 0
        ? h('p', { class: 'quiet', text: 'No execution that this token may see has failed.' })
        : table('Failures by cause', ['Cause', 'Executions', 'Last', 'What it says'], found.slice(0, 20).map(({ code, count, last }) => h('tr', {}, h('th', { scope: 'row' }, h('a', { href: toSpan(last), text: code })),
            h('td', { class: 'num', text: number(count) }), h('td', { class: 'quiet', text: relative(last.at) }), h('td', { class: 'said-wide', text: last.error?.message ?? '' })))),
      h('p', {}, h('a', { href: to(['spans'], { type: 'execution', status: 'error' }), text: 'All failed executions' }), ' · ',
        h('a', { href: to(['requests'], { show: 'failed' }), text: 'Failed requests' }))),
      TYPES.map(({ heading, none }, index) => h('section', { class: 'card' }, h('h2', { text: heading }), reports[index].length === 0
        ? h('p', { class: 'quiet', text: none }) : h('ul', { class: 'requests' }, reports[index].map(report)))),
      damaged.length === 0 && failed.length === 0 && reports.every((each) => each.length === 0) && notice('Nothing is wrong.', 'This view lists what asks for a person.'),
      leftOut(damaged));
    session.announce(`${number(failed.length)} failed executions.`);
  };
  await load();
  const soon = later(() => load().catch(() => {}), 500);
  const isOne = (row) => TYPES.some(({ type }) => row.entity_type === type) || (row.entity_type === 'execution' && row.status === 'error');
  ending(session.onRow((row) => {
    if (!isOne(row)) return;
    soon();
  }));
  ending(soon.cancel);
}
