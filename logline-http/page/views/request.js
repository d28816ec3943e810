// A request's life: its attempts on a line of time, why it waits, and when it is tried again.

import { get, post, rows } from '../api.js';
import { failure, h, later, leftOut, pill, put } from '../dom.js';
import { duration, errorText, full, head, relative, time, title as titleOf } from '../format.js';
import { to, toVersion } from '../router.js';
import { json } from '../value.js';
import { history, unbroken } from './span.js';

export const title = () => 'Request';

const OPEN = ['scheduled', 'running'];

/**
 * What the versions of a request say of its life: [{kind: 'wait' | 'run' | 'end', from, until, attempt, text, error, version}]. `until` is
 * null for what goes on.
 */
export function life(versions, now = Date.now()) {
  const found = [];
  versions.forEach((version, index) => {
    const next = versions[index + 1];
    const from = time(version.at);
    const until = next ? time(next.at) : null;
    const meta = version.metadata ?? {};
    if (version.status === 'scheduled') {
      const due = Math.max(from, time(meta.due_at ?? version.at));
      const isRetry = version.did === 'failed';
      const isPause = due > from;
      if (isPause) {
        found.push({ kind: 'pause', from, until: until === null ? due : Math.min(due, until), attempt: meta.attempt ?? 0, version,
          text: isRetry ? `pause after attempt ${meta.attempt}` : version.did === 'requested' ? 'not due yet' : 'waits until it is due' });
      }
      if ((until ?? now) > due) {
        found.push({ kind: 'wait', from: isPause ? due : from, until, attempt: meta.attempt ?? 0, version, text: 'waits for a worker' });
      }
    } else if (version.status === 'running') {
      const isLost = next && next.did === 'claimed';
      found.push({ kind: isLost ? 'lost' : 'run', from, until, attempt: meta.attempt ?? 0, version, next, text: isLost ? 'lost after' : next ? 'worked' : 'works since' });
    }
  });
  return found;
}

/** The life of a request, as far back as its versions have been read. */
function lifeOf(versions, executions) {
  const shown = unbroken(versions);
  return [shown[0].seq > 0 && h('p', { class: 'quiet', text: `It begins with version ${shown[0].seq}: what is older is not read here, or damaged.` }),
    waterfall(shown, executions, Date.now())];
}

const OUTCOMES = { completed: 'complete', failed: 'failed', gave_up: 'gave up', handed_back: 'handed back', cancelled: 'cancelled', claimed: 'worker lost' };

function waterfall(versions, executions, now) {
  const parts = life(versions, now);
  const start = time(versions[0].at);
  const last = versions[versions.length - 1];
  const isOpen = OPEN.includes(last.status);
  // A long pause that is still to come must not press what has happened into a corner.
  const ahead = now + Math.max(1000, (now - start) / 2);
  const end = Math.max(start + 1, isOpen ? now : time(last.at), ...parts.map((part) => Math.min(part.until ?? now, isOpen ? ahead : Infinity)));
  const place = (at) => Math.min(100, ((at - start) / (end - start)) * 100);
  const marker = () => {
    const line = h('div', { class: 'fall-now', title: 'now' });
    line.style.left = `${place(now)}%`;
    return line;
  };
  // One line for each attempt, with the wait before it.
  const groups = [];
  for (const part of parts) {
    const isRun = part.kind === 'run' || part.kind === 'lost';
    const open = groups[groups.length - 1];
    if (!open || open.isClosed) groups.push({ parts: [part], isClosed: isRun });
    else {
      open.parts.push(part);
      open.isClosed = isRun;
    }
  }
  return h('ol', { class: 'waterfall' }, groups.map((group) => {
    const run = group.parts.find((part) => part.kind === 'run' || part.kind === 'lost');
    // A version keeps the record of the attempt before it, until it has one of its own.
    const record = run?.next?.metadata?.execution;
    const execution = run?.kind === 'run' && record !== run.version.metadata?.execution ? executions.get(record) : null;
    const outcome = run ? (run.next ? OUTCOMES[run.next.did] ?? run.next.did : 'running') : isOpen ? 'waiting' : last.status;
    const error = run?.kind === 'lost' ? 'the lease ended before the worker recorded a result' : execution?.error ?? (run?.next?.did === 'failed' || run?.next?.did === 'gave_up' ? run.next.error : null);
    const bars = group.parts.map((part) => {
      const bar = h('div', { class: `fall fall-${part.kind} ${part.kind === 'run' && error ? 'fall-bad' : ''}`,
        title: `${part.text}: ${duration((part.until ?? now) - part.from)}` });
      bar.style.left = `${place(part.from)}%`;
      bar.style.width = `${Math.max(0.4, place(part.until ?? now) - place(part.from))}%`;
      return bar;
    });
    const told = group.parts.map((part) => `${part.text}: ${duration((part.until ?? now) - part.from)}`).join(', then ');
    return h('li', { class: 'attempt' },
      h('div', { class: 'attempt-head' },
        h('strong', { text: run ? `Attempt ${run.attempt}` : isOpen ? 'Next attempt' : 'No further attempt' }),
        pill(outcome, outcome === 'complete' ? 'good' : outcome === 'running' || outcome === 'waiting' ? 'busy' : outcome === 'cancelled' ? 'warn' : 'bad'),
        h('span', { class: 'quiet', text: told })),
      h('div', { class: 'fall-room', 'aria-hidden': 'true' }, bars, isOpen && marker()),
      error && h('p', { class: 'attempt-error', text: errorText(error) }),
      h('p', { class: 'attempt-links' },
        run && h('span', { class: 'quiet', text: `worker ${head(run.version.metadata?.worker)}` }),
        execution && h('a', { href: toVersion(execution), text: 'its record' }),
        execution?.duration_ms !== undefined && h('span', { class: 'quiet', text: `${duration(execution.duration_ms)} of work` })));
  }));
}

/** Why a request waits, and when something happens: {title, text}. */
export function why(status, waiting, last, now = Date.now()) {
  if (!OPEN.includes(status)) return { title: `It has ended: ${status}`, text: last.error ? errorText(last.error) : '' };
  const failed = last.did === 'failed' ? `Attempt ${last.metadata?.attempt} failed: ${errorText(last.error) || 'see its record'}. ` : '';
  if (!waiting) return { title: status === 'running' ? 'A worker carries it out' : 'It waits', text: `${failed}The queue says nothing of it.` };
  const due = waiting.due;
  if (waiting.parked) return { title: 'It is parked', text: `${waiting.parked}. ${due ? `Looked at again ${relative(due, now)}.` : 'It stays so until it gets another version.'}` };
  if (waiting.is_leased) return { title: 'A worker carries it out', text: `Its lease ends ${relative(due, now)}; if the worker is lost, another takes it then.` };
  if (due && time(due) > now) return { title: `Tried again ${relative(due, now)}`, text: `${failed}It is due at ${full(due)}.` };
  return { title: 'It is due and waits for a worker', text: `${failed}${due ? `Due ${relative(due, now)}. ` : ''}If this stays so, look whether a worker runs: logline run, or the loops of the service.` };
}

export async function render(content, { route, session, retitle, ending, isOpen }) {
  const [id] = route.parts;
  const said = h('p', { class: 'said', role: 'status' });
  const body = h('div', { class: 'stack' });
  put(content, h('p', { class: 'quiet', text: 'Reading …' }));
  const identity = await session.identity;
  const may = identity.permissions.some((permission) => ['requests:manage', 'tenant:manage'].includes(permission));
  const executions = new Map();
  let [state, versions, damaged, failed] = [null, [], [], null];

  const act = (name, path) => async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    said.textContent = `${name} …`;
    try {
      for (const each of path) await post(`requests/${id}/${each}`);
      said.textContent = `${name}: done.`;
      await read();
    } catch (error) {
      said.textContent = `${name} failed: ${error.message}`;
      button.disabled = false;
    }
  };

  const actions = () => {
    if (!may) return h('p', { class: 'quiet', text: 'To cancel or revive it, the token needs requests:manage.' });
    const isEnded = !OPEN.includes(state.status);
    const isLater = state.status === 'scheduled' && state.waiting?.due && time(state.waiting.due) > Date.now();
    const cancel = h('button', { type: 'button', class: 'danger', onclick: () => {
      put(asking, h('span', { text: 'No further attempt is made. ' }),
        h('button', { type: 'button', class: 'danger', onclick: act('Cancel', ['cancel']), text: 'Yes, cancel it' }),
        h('button', { type: 'button', onclick: () => { put(asking, cancel); cancel.focus(); }, text: 'Keep it' }));
      asking.querySelector('button').focus();
    }, text: 'Cancel' });
    const asking = h('span', { class: 'asking' }, cancel);
    return h('div', { class: 'actions' },
      isEnded && state.status !== 'complete' && h('button', { type: 'button', class: 'primary', onclick: act('Revive', ['revive']), text: 'Revive' }),
      isLater && h('button', { type: 'button', class: 'primary', title: 'Cancels the pause, and revives it at once', onclick: act('Try now', ['cancel', 'revive']), text: 'Try now' }),
      !isEnded && asking);
  };

  // What there is of it, if the service cannot tell its state: a version or a record of an attempt is damaged.
  const drawPart = () => {
    put(body, failure(failed, () => read().catch(() => {})), leftOut(damaged),
      versions.length > 0 && h('section', { class: 'card' }, h('h2', { text: 'Its life, as far as it can be read' }), lifeOf(versions, executions)),
      versions.length > 0 && versionList());
  };

  const versionList = () => h('section', { class: 'card' }, h('h2', { text: 'Versions' }), h('ol', { class: 'versions' }, versions.map((version) => h('li', { class: 'version' },
    h('a', { href: toVersion(version), text: `Version ${version.seq}` }), pill(version.status ?? '–'),
    h('span', { class: 'version-said quiet', text: `${version.did ?? ''} ${full(version.at)}` })))));

  const draw = () => {
    if (failed) return drawPart();
    const last = state.request;
    const reason = why(state.status, state.waiting, last);
    const first = versions[0] ?? last;
    const meta = first.metadata ?? {};
    put(body,
      h('p', { class: 'lead' }, pill(state.status), h('span', { class: 'quiet', text: `${last.this} · asked by ${last.owner_id} · ${full(first.at)}` }),
        h('a', { href: toVersion(last), text: `verify version ${last.seq}` })),
      h('section', { class: 'why' }, h('h2', { text: reason.title }), reason.text && h('p', { text: reason.text }), actions(), said),
      h('section', { class: 'card' }, h('h2', { text: 'Its life' }), leftOut(damaged), lifeOf(versions, executions),
        h('p', { class: 'legend quiet' }, ...[['pause', 'pause, or not due'], ['wait', 'waits for a worker'], ['run', 'attempt'], ['bad', 'failed attempt'], ['now', 'now']]
          .map(([kind, text]) => h('span', {}, h('span', { class: `legend-mark fall-${kind}`, 'aria-hidden': 'true' }), text)))),
      h('div', { class: 'columns' },
        h('div', {},
          state.output !== null && h('section', { class: 'card' }, h('h2', { text: 'Output' }), json(state.output, 'Output')),
          state.error !== null && h('section', { class: 'card' }, h('h2', { text: 'Failure of the last attempt' }), json(state.error, 'Failure')),
          h('section', { class: 'card' }, h('h2', { text: 'Input' }), json(first.input ?? null, 'Input'))),
        h('div', {}, h('section', { class: 'card' }, h('h2', { text: 'What was asked' }), h('dl', { class: 'facts' },
          [['Function', first.parent_id && h('a', { href: to(['span', last.tenant_id, first.parent_id]), text: head(first.parent_id, 13) })],
            ['Attempts', `${state.attempts ?? 0}${meta.max_attempts ? ` of ${meta.max_attempts}` : ''}`],
            ['First pause', meta.backoff_ms && duration(meta.backoff_ms)], ['Deadline', meta.deadline && full(meta.deadline)],
            ['Priority', meta.priority], ['Trace', last.trace_id], ['Id', id]]
            .filter(([, value]) => value !== undefined && value !== null && value !== '')
            .map(([name, value]) => h('div', {}, h('dt', { text: name }), h('dd', {}, value instanceof Node ? value : String(value)))))),
        versionList())));
    return undefined;
  };

  const read = async () => {
    const unread = [];
    const found = await Promise.all([get(`requests/${id}`).catch((error) => error), history(id, unread, 0).catch(() => history(id, unread))]);
    failed = found[0] instanceof Error ? found[0] : null;
    if (failed && (failed.name === 'AbortError' || (found[1].length === 0 && unread.length === 0))) throw failed;
    if (!failed) state = found[0];
    [versions, damaged] = [found[1], unread];
    const ids = versions.map((version) => version.metadata?.execution).filter((each) => each && !executions.has(each));
    await Promise.all([...new Set(ids)].map(async (each) => {
      const [row] = await rows('spans', { id: each }, 1, damaged).catch(() => []);
      if (row) executions.set(each, row);
    }));
    if (isOpen()) draw();
  };

  await read();
  if (!isOpen()) return;
  const named = state?.request ?? versions[versions.length - 1];
  if (named) retitle(`Request: ${titleOf(named)}`);
  put(content, body);
  const soon = later(() => read().then(() => !failed && session.announce(`The request is ${state.status}.`)).catch(() => {}), 150);
  ending(session.onRow((row) => { if (row.id === id) soon(); }));
  // What waits says how long still; what runs grows.
  const tick = setInterval(() => {
    if (failed || !OPEN.includes(state.status) || document.hidden || body.contains(document.activeElement)) return;
    draw();
  }, 2000);
  ending(() => { clearInterval(tick); soon.cancel(); });
}
