// One version of a span: what it says, whether that is true, where it comes from and what follows from it.

import { get, rows } from '../api.js';
import { diff } from '../diff.js';
import { h, leftOut, notice, pill, put } from '../dom.js';
import { errorText, full, head, plain, relative, title as titleOf } from '../format.js';
import { to, toSpan, toVersion } from '../router.js';
import { json } from '../value.js';
import { CHECKS, summary, verify } from '../verify.js';

export const title = () => 'Span';

const MOST_VERSIONS = 500;
/** How many versions are read before one that is older than those, and how many from it on. */
const ABOUT = 10;
const MOST_FOLLOWING = 100;

const NAMES = { hash: 'Hash', signature: 'Signature', link: 'Link', role: 'Signer’s role', inclusion: 'Inclusion' };
const WORDS = { passed: 'passed', failed: 'failed', unchecked: 'not checked' };
const SIGNS = { passed: '✓', failed: '✕', unchecked: '–' };

/** What the checks of a row say, each on its line. */
export function verdict(checks) {
  const all = summary(checks);
  return h('section', { class: `verdict verdict-${all.state}`, 'aria-labelledby': 'verdict-title', 'data-verdict': all.state },
    h('h2', { id: 'verdict-title', text: all.text }),
    h('p', { class: 'quiet', text: 'Computed in this browser from the row as it was sent.' }),
    h('ul', { class: 'checks' }, CHECKS.map((name) => h('li', { class: `check check-${checks[name].state}`, 'data-check': name, 'data-state': checks[name].state },
      h('span', { class: 'check-sign', 'aria-hidden': 'true', text: SIGNS[checks[name].state] }),
      h('span', { class: 'check-name', text: NAMES[name] }),
      h('span', { class: 'check-state', text: WORDS[checks[name].state] }),
      h('span', { class: 'check-text', text: checks[name].text })))));
}

/** Says which versions before a row are not listed, and leads to them. Among the newest ones all are asked for, so what is not there is missing. */
const gap = (row, from, isMissing) => h('p', { class: isMissing ? 'gap link-broken' : 'gap quiet' }, isMissing ? 'Missing or damaged: ' : 'Not listed: ',
  from === row.seq - 1 ? '' : `versions ${from} to ${row.seq - 1}. `,
  [...new Set([from, row.seq - 1])].map((seq) => [h('a', { href: toVersion({ ...row, seq }), text: `Version ${seq}` }), ' ']));

function chain(versions, seq, compared, choose) {
  const items = versions.map((row, index) => {
    const before = versions[index - 1];
    const from = before ? before.seq + 1 : 0;
    const isBroken = before && row.seq === from && row.prev_hash !== before.curr_hash;
    return h('li', { class: `version ${row.seq === seq ? 'version-here' : ''}` },
      row.seq > from && gap(row, from, versions.length < MOST_VERSIONS || (before && row.seq > versions[Math.max(0, versions.length - MOST_VERSIONS)].seq)),
      isBroken && h('span', { class: 'link-broken', text: 'It names another predecessor' }),
      h('a', { href: toVersion(row), 'aria-current': row.seq === seq ? 'true' : null, text: `Version ${row.seq}` }),
      row.status && pill(row.status),
      row.is_deleted && h('span', { class: 'tag', text: 'tombstone' }),
      row.seq !== seq && h('button', { type: 'button', class: 'plain', 'aria-pressed': String(row.seq === compared), onclick: () => choose(row.seq) },
        row.seq === compared ? 'compared' : 'compare', h('span', { class: 'unseen', text: ` with version ${row.seq}` })),
      h('span', { class: 'version-said quiet' }, `${row.did ?? ''} ${full(row.at)} `.trimStart(), h('code', { text: head(row.curr_hash) })));
  });
  return h('ol', { class: 'versions' }, items);
}

const FACTS = [
  ['did', 'Did'], ['this', 'This'], ['who', 'Who'], ['owner_id', 'Owner'], ['tenant_id', 'Tenant'], ['visibility', 'Visibility'],
  ['language', 'Language'], ['runtime', 'Runtime'], ['trace_id', 'Trace'], ['duration_ms', 'Duration in ms'],
];
const SEALS = [['id', 'Id'], ['curr_hash', 'Hash'], ['prev_hash', 'Hash before'], ['public_key', 'Key'], ['signature', 'Signature']];
const BODIES = [['error', 'Error'], ['input', 'Input'], ['output', 'Output'], ['content', 'Content'], ['metadata', 'Metadata']];

const facts = (row, names, isCode) => h('dl', { class: 'facts' }, names.filter(([name]) => row[name] !== undefined && row[name] !== null)
  .map(([name, label]) => h('div', {}, h('dt', { text: label }), h('dd', {}, isCode ? h('code', { text: row[name] }) : String(row[name])))));

function bodies(row) {
  const code = row.code && h('section', { class: 'card' }, h('h2', { text: 'Code' }),
    h('pre', { class: 'json', tabindex: '0', role: 'region', 'aria-label': 'Code', text: row.code.length > 20_000 ? `${row.code.slice(0, 20_000)}\n…` : row.code }));
  return [code, ...BODIES.filter(([name]) => row[name] !== undefined && row[name] !== null)
    .map(([name, label]) => h('section', { class: 'card' }, h('h2', { text: label }), json(row[name], label)))];
}

/** Rows as a short list of links. */
export const links = (list, empty) => (list.length === 0 ? h('p', { class: 'quiet', text: empty })
  : h('ul', { class: 'links' }, list.map((row) => h('li', {},
    h('span', { class: 'cell-type', text: row.entity_type }), h('a', { href: toSpan(row), text: titleOf(row) }),
    row.status && pill(row.status), h('span', { class: 'quiet', text: row.error ? errorText(row.error) : relative(row.at) })))));

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

// Spans that metadata names as {id, seq, curr_hash} or as an id: what a runtime records of where a row comes from.
function named(value, path = '', out = [], depth = 0) {
  if (depth > 4 || out.length > 40) return out;
  if (typeof value === 'string' && UUID.test(value)) out.push({ path, id: value, tenant: null });
  else if (typeof value === 'object' && value !== null) {
    if (typeof value.id === 'string' && UUID.test(value.id) && value.curr_hash) out.push({ path, id: value.id, tenant: value.tenant ?? null, seq: value.seq });
    else for (const [name, item] of Object.entries(value)) named(item, path ? `${path}.${name}` : name, out, depth + 1);
  }
  return out;
}

function origins(row) {
  const found = [];
  if (row.parent_id) found.push({ path: 'parent', id: row.parent_id, tenant: null });
  for (const id of row.related_to ?? []) found.push({ path: 'related to', id, tenant: null });
  found.push(...named(row.metadata));
  const seen = new Set();
  return found.filter(({ id }) => id !== row.id && !seen.has(id) && seen.add(id));
}

async function resolve(origin, tenant) {
  if (origin.tenant && origin.tenant !== tenant) return { ...origin, row: null };
  try {
    return { ...origin, row: await get(`spans/${origin.id}`) };
  } catch {
    return { ...origin, row: null };
  }
}

const origin = ({ path, id, tenant, row }) => h('li', {},
  h('span', { class: 'cell-type', text: path }),
  row ? h('a', { href: toSpan(row), text: titleOf(row) }) : h('code', { text: `${tenant ? `${plain(tenant)}/` : ''}${plain(id)}` }),
  row ? h('span', { class: 'quiet', text: row.entity_type }) : h('span', { class: 'quiet', text: 'not to be seen with this token' }));

export async function render(content, { route, session, retitle, ending, isOpen }) {
  const [tenant, id, seqText] = route.parts;
  const identity = await session.identity;
  if (tenant !== identity.tenant) {
    return put(content, notice(`This span is in tenant ${tenant}.`, `The token is of tenant ${identity.tenant}. Open the link with a token of the other tenant.`));
  }
  put(content, h('p', { class: 'quiet', text: 'Reading …' }));
  const damaged = [];
  const versions = await history(id, damaged, seqText === undefined ? null : Number(seqText));
  const row = seqText === undefined ? versions[versions.length - 1] : versions.find((found) => found.seq === Number(seqText));
  if (!row) return put(content, notice('There is no such version that this token may see.', 'Check the link; or look at another version.', chain(versions, -1), leftOut(damaged)));
  if (!isOpen()) return undefined;
  retitle(titleOf(row));

  const [verifying, following, coming] = ['verdict-room', 'card', 'card'].map((name) => h('section', { class: name }));
  const line = h('section', { class: 'card' });
  const state = { compared: versions[versions.indexOf(row) - 1]?.seq ?? null };
  const drawChain = () => put(line, h('h2', { text: counted(versions) }),
    chain(versions, row.seq, state.compared, (seq) => { state.compared = seq; drawChain(); }), leftOut(damaged), drawDifference());
  const drawDifference = () => {
    const other = versions.find((found) => found.seq === state.compared);
    if (!other) return null;
    const [before, after] = other.seq < row.seq ? [other, row] : [row, other];
    return h('div', { class: 'difference' }, h('h3', { text: `From version ${before.seq} to ${after.seq}` }), diff(before, after));
  };
  drawChain();
  put(verifying, h('p', { class: 'quiet', text: 'Verifying …' }));
  put(coming, h('h2', { text: 'Where it comes from' }), h('p', { class: 'quiet', text: 'Reading …' }));
  put(following, h('h2', { text: 'What follows from it' }), h('p', { class: 'quiet', text: 'Reading …' }));
  put(content,
    h('p', { class: 'lead' }, h('span', { class: 'cell-type', text: row.entity_type }), row.status && pill(row.status),
      row.is_deleted && h('span', { class: 'tag', text: 'tombstone' }), h('span', { class: 'quiet', title: full(row.at), text: `version ${row.seq} · ${full(row.at)}` }),
      row.entity_type === 'request' && h('a', { href: to(['request', row.id]), text: 'its life as a request' })),
    row.description && h('p', { text: row.description }),
    h('div', { class: 'columns' },
      h('div', {}, verifying, h('section', { class: 'card' }, h('h2', { text: 'Facts' }), facts(row, FACTS)), bodies(row)),
      h('div', {}, line, coming, following, h('section', { class: 'card' }, h('h2', { text: 'Seal' }), facts(row, SEALS, true)))));

  const [trust, proof] = await Promise.all([session.trust, get(`spans/${id}/proof`, { seq: row.seq }).catch(() => null)]);
  if (!isOpen()) return undefined;
  put(verifying, verdict(await verify(row, { versions, trust, proof })));

  const found = await Promise.all(origins(row).slice(0, 20).map((each) => resolve(each, identity.tenant)));
  put(coming, h('h2', { text: 'Where it comes from' }), found.length === 0
    ? h('p', { class: 'quiet', text: 'It names no other span.' })
    : h('ul', { class: 'links' }, found.map(origin)));

  const lost = [];
  const after = await descendants(row, session, lost);
  put(following, h('h2', { text: 'What follows from it' }), links(after, 'Nothing that this token may see names it.'), leftOut(lost),
    h('p', { class: 'quiet', text: 'Spans whose parent it is, those of its trace, and those that are loaded and name it.' }));
  ending(session.onRow((next) => {
    if (next.id === id && !versions.some((known) => known.seq === next.seq)) {
      versions.push(next);
      drawChain();
      session.announce(`Version ${next.seq} has come.`);
    }
  }));
  return undefined;
}

const counted = (versions) => {
  const all = versions[versions.length - 1].seq + 1;
  if (all === 1) return 'One version';
  return versions.length === all ? `${all} versions` : `${versions.length} of ${all} versions`;
};

/** The newest versions of a span that can be read, and those about `seq` if it is older: oldest first. */
export async function history(id, damaged, seq = null) {
  const newest = (await rows('timeline', { id, order: 'newest' }, MOST_VERSIONS, damaged)).reverse();
  const first = newest[0]?.seq ?? 0;
  if (!Number.isSafeInteger(seq) || seq > first || first === 0) return newest;
  const about = await get(`spans/${id}/versions`, { from_seq: Math.max(0, seq - ABOUT), limit: 2 * ABOUT });
  return [...about.spans.filter((row) => row.seq < first), ...newest];
}

/** The versions after the last one that is missing among them. */
export function unbroken(versions) {
  let from = versions.length - 1;
  while (from > 0 && versions[from - 1].seq === versions[from].seq - 1) from -= 1;
  return versions.slice(Math.max(0, from));
}

async function descendants(row, session, damaged) {
  const read = (params) => rows('timeline', params, MOST_FOLLOWING, damaged).catch(() => []);
  const [children, traced] = await Promise.all([read({ parent_id: row.id }), row.trace_id ? read({ trace_id: row.trace_id }) : []]);
  const loaded = [];
  for (let index = 0; index < session.feed.length && loaded.length < MOST_FOLLOWING; index += 1) {
    const other = session.feed.at(index);
    if (other.related_to?.includes(row.id)) loaded.push(other);
  }
  const last = new Map();
  for (const other of [...children, ...loaded, ...traced]) {
    if (other.id === row.id) continue;
    const known = last.get(other.id);
    if (!known || known.seq < other.seq) last.set(other.id, other);
  }
  return [...last.values()].sort((a, b) => (a.at < b.at ? 1 : -1)).slice(0, MOST_FOLLOWING);
}
