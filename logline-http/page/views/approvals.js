// What is proposed, what it would change, and how the votes stand. Approving is done where the approver's key is, never here.

import { get, rows } from '../api.js';
import { diff } from '../diff.js';
import { failure, h, later, leftOut, notice, pill, put } from '../dom.js';
import { head, relative, title as titleOf } from '../format.js';
import { toVersion } from '../router.js';
import { json } from '../value.js';

export const title = () => 'Approvals';

const MOST = 50;

function votes(found) {
  const list = (name, each, kind) => each.length > 0 && h('li', {}, pill(name, kind), each.map((vote) => h('span', { class: 'vote' },
    h('code', { text: head(vote.key) }), vote.reason && h('span', { class: 'quiet', text: ` ${vote.reason}` }))));
  return h('ul', { class: 'votes' }, list('approved', found.counted, 'good'), list('rejected', found.rejected, 'bad'), list('does not count', found.void, 'warn'));
}

function standing(found) {
  if (found.carried_out) return { text: `carried out ${relative(found.carried_out)}`, kind: 'good' };
  if (!found.refusal) return { text: 'may be carried out', kind: 'good' };
  if (found.refusal.code === 'not_approved') return { text: `${found.counted.length} of ${found.needed} approvals`, kind: 'busy' };
  return { text: found.refusal.code.replaceAll('_', ' '), kind: 'warn' };
}

function proposal(found, tenant) {
  const { proposal: row, subject, in_force: before } = found;
  const said = row.metadata?.proposal ?? {};
  const state = standing(found);
  const isWaiting = found.refusal?.code === 'not_approved';
  const isDone = Boolean(found.carried_out);
  return h('article', { class: 'card proposal' },
    h('h2', {}, h('a', { href: toVersion(row), text: subject ? titleOf(subject) : row.this }), ' ', pill(state.text, state.kind)),
    h('p', { class: 'quiet', text: [said.act, said.class && `of a ${said.class}`, said.environment && `in ${said.environment}`,
      subject && `version ${before && before.seq !== subject.seq ? `${before.seq} → ` : ''}${subject.seq}`, !isDone && said.expires && `ends ${relative(said.expires)}`].filter(Boolean).join(' · ') }),
    said.emergency && h('p', { class: 'reason' }, h('strong', { text: 'Emergency: ' }), said.emergency),
    said.reason && h('blockquote', { text: said.reason }),
    found.refusal && !isWaiting && !isDone && h('p', { class: 'quiet', text: found.refusal.reason }),
    votes(found),
    isDone ? null : subject ? h('details', { open: isWaiting }, h('summary', { text: before ? 'What it changes' : 'What it puts in force: nothing is in force yet' }),
      before ? diff(before, subject) : json({ name: subject.name, runtime: subject.runtime, input: subject.input, content: subject.content, metadata: subject.metadata }, 'The proposed version'))
      : h('p', { class: 'quiet', text: 'The proposed version is not to be seen with this token.' }),
    isWaiting && h('details', {}, h('summary', { text: 'How to approve it' }),
      h('p', { text: 'On the machine with the approver’s key. The tool shows the change again, hashes it, and asks.' }),
      h('pre', { class: 'json', tabindex: '0', role: 'region', 'aria-label': 'Command', text: `logline approve ${row.id} --tenant ${tenant} --key approver.key` })));
}

/** Whether a proposal waits: for votes, or to be carried out. */
const isWaiting = (found) => Boolean(found.error) || (!found.carried_out && (!found.refusal || ['not_approved', 'gate_not_passed'].includes(found.refusal.code)));

/** The newest proposals, each with the count of its votes. */
async function read(most, damaged) {
  const list = await rows('spans', { type: 'proposal' }, most, damaged);
  return Promise.all(list.map((row) => get(`proposals/${row.id}`).catch((error) => ({ error, proposal: row }))));
}

/** How many of the newest proposals wait. */
export const countWaiting = async () => (await get('proposals')).proposals.length;

export async function render(content, { session, ending, isOpen }) {
  put(content, h('p', { class: 'quiet', text: 'Reading …' }));
  const identity = await session.identity;
  const load = async () => {
    const damaged = [];
    const found = await read(MOST, damaged);
    if (!isOpen()) return;
    const [waiting, done] = [found.filter(isWaiting), found.filter((each) => !isWaiting(each))];
    const draw = (each) => (each.error ? failure(each.error, load) : proposal(each, identity.tenant));
    put(content,
      waiting.length === 0 && notice('Nothing waits for approval.', 'A publisher proposes a change with: logline propose function NAME --tenant TENANT. It appears here with what it would change.'),
      waiting.map(draw),
      done.length > 0 && h('h2', { class: 'part', text: 'Decided, ended or withdrawn' }), done.map(draw),
      found.length >= MOST && h('p', { class: 'quiet', text: `The newest ${MOST}.` }), leftOut(damaged));
    session.announce(`${waiting.length} proposals wait.`);
  };
  await load();
  const soon = later(() => load().catch(() => {}), 300);
  ending(session.onRow((row) => {
    if (!['proposal', 'approval', 'rejection', 'withdrawal', 'promotion', 'rollback'].includes(row.entity_type)) return;
    soon();
  }));
  ending(soon.cancel);
}

