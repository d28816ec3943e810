// This tab's side of the stream. A shared worker holds the connection. Where there is none, the tab with a lock holds it and tells the
// others; where there are no locks either, each tab has its own.

import { base } from './api.js';
import { blake3 } from './blake3.js';
import { toHex } from './canonical.js';
import { Timeline } from './events.js';

const WORKER = new URL('stream-worker.js', import.meta.url).href;

// The only address that may become a script's: the policy of the page refuses all others.
const trusted = globalThis.trustedTypes?.createPolicy('logline', {
  createScriptURL: (address) => {
    if (address === WORKER) return address;
    throw new TypeError('this is not the worker of the page');
  },
});

function byWorker(token, on) {
  const worker = new SharedWorker(trusted ? trusted.createScriptURL(WORKER) : WORKER, { type: 'module', name: 'logline' });
  const lock = `logline-tab-${Math.random().toString(36).slice(2)}`;
  const alive = new AbortController();
  worker.port.onmessage = ({ data }) => on(data);
  const join = (held) => worker.port.postMessage({ kind: 'join', base, token, lock: held ? lock : null });
  if (navigator.locks) {
    navigator.locks.request(lock, () => new Promise((done) => {
      join(true);
      alive.signal.addEventListener('abort', done);
    }));
  } else {
    join(false);
  }
  return {
    hurry: () => worker.port.postMessage({ kind: 'hurry' }),
    close: () => {
      worker.port.postMessage({ kind: 'leave' });
      alive.abort();
    },
  };
}

function byLock(token, on) {
  // The channel has the name of the token's hash: other tokens of this origin have other channels.
  const name = `logline-${toHex(blake3(new TextEncoder().encode(JSON.stringify([base, token])))).slice(0, 32)}`;
  const channel = new BroadcastChannel(name);
  let [after, timeline, closed] = [null, null, false];
  channel.onmessage = ({ data }) => {
    if (data.kind === 'ask') return timeline && channel.postMessage(timeline.state);
    if (data.id) after = data.id;
    on(data);
  };
  channel.postMessage({ kind: 'ask' });
  const lead = async () => {
    if (closed) return;
    const tell = (message) => { channel.postMessage(message); on(message); };
    timeline = new Timeline(base, token, tell, after);
    // Without a place to go on from, rows may be missing before it begins.
    if (after === null) tell(timeline.state);
    await timeline.run();
  };
  if (navigator.locks) navigator.locks.request(name, lead);
  else lead();
  return {
    hurry: () => timeline?.hurry(),
    close: () => {
      closed = true;
      timeline?.close();
      channel.close();
    },
  };
}

/** Follows the timeline of a token. `on` gets {kind: 'rows', rows} and {kind: 'state', state}. */
export function follow(token, on) {
  const open = () => (typeof SharedWorker === 'function' ? byWorker(token, on) : byLock(token, on));
  let stream = open();
  const hide = () => stream?.close();
  const show = ({ persisted }) => {
    if (!persisted) return;
    // It begins anew: rows that came while the page was put away are read.
    on({ kind: 'state', state: 'connecting' });
    stream = open();
  };
  const hurry = () => stream?.hurry();
  addEventListener('pagehide', hide);
  addEventListener('pageshow', show);
  addEventListener('online', hurry);
  return () => {
    removeEventListener('pagehide', hide);
    removeEventListener('pageshow', show);
    removeEventListener('online', hurry);
    stream?.close();
    stream = null;
  };
}
