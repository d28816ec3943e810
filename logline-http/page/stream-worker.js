// One stream for all tabs: browsers open six connections to a host, and a tab that holds one each would starve the others. Tabs with the
// same token share one timeline; the token stays in this worker's memory.

import { Timeline } from './events.js';

/** The open timelines by base and token: {timeline, ports}. */
const open = new Map();

function leave(port) {
  for (const [name, shared] of open) {
    if (!shared.ports.delete(port) || shared.ports.size > 0) continue;
    shared.timeline.close();
    open.delete(name);
  }
}

function join(port, { base, token }) {
  leave(port);
  const name = JSON.stringify([base, token]);
  let shared = open.get(name);
  if (!shared || shared.timeline.state.state === 'refused') {
    const ports = new Set();
    shared = { ports, timeline: new Timeline(base, token, (message) => ports.forEach((each) => each.postMessage(message))) };
    open.set(name, shared);
    shared.timeline.run();
  }
  shared.ports.add(port);
  port.postMessage(shared.timeline.state);
}

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.kind === 'join') {
      join(port, data);
      // A tab that dies says nothing, but its lock is free then.
      if (data.lock && navigator.locks) navigator.locks.request(data.lock, () => leave(port));
    } else if (data.kind === 'leave') {
      leave(port);
    } else if (data.kind === 'hurry') {
      open.forEach(({ timeline }) => timeline.hurry());
    }
  };
};
