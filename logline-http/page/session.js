// The token of this tab. It is in sessionStorage and in headers, never in an address, in a log or in another tab.

import { blake3 } from './blake3.js';
import { toHex } from './canonical.js';

const NAME = 'logline.token';
const HELD = 'logline-token-';

/** Takes a token that came once behind `#token=` out of the address and out of the history. Returns it, or null. It is not kept yet. */
export function takeFromAddress() {
  const fragment = location.hash.slice(1);
  if (!fragment.startsWith('token=')) return null;
  const [token, ...view] = fragment.slice('token='.length).split('&view=');
  let [taken, rest] = [null, ''];
  try {
    taken = decodeURIComponent(token) || null;
    rest = view.length > 0 ? decodeURIComponent(view.join('&view=')) : '';
  } catch {
    // What is not encoded as it should be is no token.
  }
  history.replaceState(null, '', `${location.pathname}${location.search}#${rest.startsWith('/') ? rest : '/overview'}`);
  return taken;
}

export const token = () => sessionStorage.getItem(NAME);
export const keep = (text) => sessionStorage.setItem(NAME, text);
export const forget = () => sessionStorage.removeItem(NAME);

// A hash stands for the token, so that no other tab learns it.
const nameOf = (text) => `${HELD}${toHex(blake3(new TextEncoder().encode(text))).slice(0, 32)}`;

/** Tells the other tabs that somebody is signed in here, until the function that it returns is called. */
export function hold(text) {
  const ended = new AbortController();
  const held = () => new Promise((done) => { ended.signal.addEventListener('abort', done); });
  if (navigator.locks) navigator.locks.request(nameOf(text), { mode: 'shared' }, () => (ended.signal.aborted ? undefined : held()));
  return () => ended.abort();
}

/** Whether another tab is signed in with another token, or may be: without locks nobody knows. */
export async function isOtherElsewhere(text) {
  if (!navigator.locks) return true;
  const { held } = await navigator.locks.query();
  return held.some(({ name }) => name.startsWith(HELD) && name !== nameOf(text));
}
