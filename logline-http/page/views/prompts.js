// Prompts by family: what the bandit gives each variant, how evaluations went, and the last runs.

import { rows } from '../api.js';
import { share } from '../chart.js';
import { h, later, leftOut, notice, pill, put, table } from '../dom.js';
import { duration, money, number, percent, relative } from '../format.js';
import { to, toVersion } from '../router.js';

export const title = () => 'Prompts';

const MOST = 200;

const familyOf = (row) => (typeof row.metadata?.family === 'string' ? row.metadata.family : null) ?? (row.this?.startsWith('prompt.') ? row.this.slice('prompt.'.length) : row.name);

/** The newest row of each key: lists come newest first. */
const newest = (list, key) => {
  const found = new Map();
  for (const row of list) if (!found.has(key(row))) found.set(key(row), row);
  return found;
};

function shares(posterior) {
  const { variants = [], draws = 1 } = posterior.metadata ?? {};
  const caption = h('caption', {}, 'The bandit’s share ', h('span', { class: 'quiet', text: `learnt ${relative(posterior.at)}` }));
  return table('The bandit’s share', ['Variant', 'Share', 'Good', 'Bad', 'Runs', 'Guard'], variants.map((known) => {
    const value = draws > 0 ? known.share / draws : 0;
    return h('tr', {}, h('th', { scope: 'row', text: known.name }),
      h('td', {}, h('div', { class: 'wide' }, share({ value, label: `${known.name}: ${percent(value)}` }), h('span', { class: 'num', text: percent(value) }))),
      h('td', { class: 'num', text: number(known.runs?.good ?? 0) }), h('td', { class: 'num', text: number(known.runs?.bad ?? 0) }),
      h('td', { class: 'num', text: number(known.seen ?? 0) }),
      h('td', {}, known.veto && pill(`left out: ${known.veto}`, 'bad')));
  }), caption);
}

function evaluations(list) {
  return table('Evaluations', ['Variant', 'Passed', 'Trials', 'p95', 'Cost', 'Gate', 'When'], list.map((row) => {
    const { rate, counts = {}, gate, latency_p95_ms: p95, cost_nanos: cost } = row.metadata ?? {};
    const interval = rate && `${percent(rate.low)} to ${percent(rate.high)}`;
    return h('tr', {}, h('th', { scope: 'row' }, h('a', { href: toVersion(row), text: row.name ?? row.id })),
      h('td', {}, rate ? h('div', { class: 'wide' }, share({ ...rate, label: `${percent(rate.value)}, 95 % interval ${interval}` }), h('span', { class: 'num', text: percent(rate.value) }), h('span', { class: 'quiet', text: interval })) : '–'),
      h('td', { class: 'num', text: Object.entries(counts).filter(([, value]) => value > 0).map(([name, value]) => `${value} ${name}`).join(', ') || '–' }),
      h('td', { class: 'num', text: duration(p95) }), h('td', { class: 'num', text: cost ? money(cost) : '–' }),
      h('td', {}, gate ? [pill(gate.passed ? 'passed' : 'failed'), ...(gate.reasons ?? []).map((reason) => h('span', { class: 'quiet', text: reason }))] : '–'),
      h('td', { class: 'quiet', text: relative(row.at) }));
  }), h('caption', { text: 'Evaluations' }));
}

function runs(list) {
  return h('details', {}, h('summary', { text: `${number(list.length)} newest runs` }), h('ul', { class: 'links' }, list.slice(0, 20).map((row) => h('li', {},
    h('a', { href: toVersion(row), text: row.name ?? 'run' }), pill(row.metadata?.contract ?? row.status ?? '–', row.metadata?.contract === 'broken' ? 'bad' : 'plain'),
    h('span', { class: 'quiet', text: [duration(row.metadata?.latency_ms), row.metadata?.cost && money(row.metadata.cost.nanos, row.metadata.cost.currency), row.metadata?.model, relative(row.at)].filter(Boolean).join(' · ') })))));
}

export async function render(content, { session, ending, isOpen }) {
  put(content, h('p', { class: 'quiet', text: 'Reading …' }));
  const load = async () => {
    const damaged = [];
    const [families, variants, posteriors, evals, ran] = await Promise.all(
      ['prompt_family', 'prompt_variant', 'prompt_posterior', 'prompt_eval_run', 'prompt_run'].map((type) => rows('spans', { type }, MOST, damaged)));
    if (!isOpen()) return;
    const names = new Set([...families.map((row) => row.name), ...[...variants, ...posteriors, ...evals, ...ran].map(familyOf)]);
    const learnt = newest(posteriors, familyOf);
    if (names.size === 0) {
      put(content, notice('There are no prompts.', 'Publish blocks, variants and a family with: logline publish prompts.ndjson --tenant TENANT. See docs/prompts.md.'), leftOut(damaged));
      return;
    }
    const of = (list, name) => list.filter((row) => familyOf(row) === name);
    put(content, [...names].sort().map((name) => {
      const family = families.find((row) => row.name === name);
      const evaluated = [...newest(of(evals, name), (row) => row.parent_id).values()];
      const own = of(variants, name);
      return h('section', { class: 'card' }, h('h2', {}, family ? h('a', { href: toVersion(family), text: name }) : name),
        h('p', { class: 'quiet' }, own.length === 0 ? 'No variant is to be seen.' : own.flatMap((row, index) => [index > 0 ? ', ' : '', h('a', { href: toVersion(row), text: row.name ?? row.id })])),
        learnt.has(name) && shares(learnt.get(name)), evaluated.length > 0 && evaluations(evaluated), of(ran, name).length > 0 && runs(of(ran, name)),
        !learnt.has(name) && evaluated.length === 0 && h('p', { class: 'quiet', text: 'Nothing was learnt or evaluated yet: logline prompt eval SUITE, or a schedule for prompt.learn.' }));
    }), h('p', {}, h('a', { href: to(['spans'], { type: 'prompt_run' }), text: 'All runs' })), leftOut(damaged));
  };
  await load();
  const soon = later(() => load().catch(() => {}), 1000);
  ending(session.onRow((row) => {
    if (!row.entity_type.startsWith('prompt_')) return;
    soon();
  }));
  ending(soon.cancel);
}
