// A token that came by a link, while somebody is signed in with another. Whoever sends such a link may want others to work in his tenant.

import { whose } from '../api.js';
import { h, put } from '../dom.js';

export const title = () => 'Change the token?';

/** `offered` is the link's token, `session` the present one or null. `take` and `decline` do what is decided. */
export async function render(content, { offered, session, take, decline, isOpen }) {
  put(content, h('p', { class: 'quiet', text: 'Reading …' }));
  const [now, other] = await Promise.all([session?.identity.catch(() => null) ?? null, whose(offered)]);
  if (!isOpen()) return;
  // Another key of the same user reads and writes nothing elsewhere.
  if (now && other && now.tenant === other.tenant && now.user === other.user) return take();
  const stay = h('button', { type: 'button', class: 'primary', onclick: decline,
    text: now ? `Stay ${now.user} in ${now.tenant}` : session ? 'Stay signed in' : 'Give a token of mine' });
  put(content, h('div', { class: 'sign-in' },
    h('p', { class: 'reason', role: 'alert', text: other ? `The link has a token of the user ${other.user} in the tenant ${other.tenant}.` : 'The link has a token that the service does not take.' }),
    h('p', { text: now ? `You are signed in as ${now.user} in the tenant ${now.tenant}.` : session ? 'You are signed in with another token.'
      : 'You may be signed in with another token in another tab.' }),
    other && h('p', { text: 'With the link’s token you see that tenant, and what you do is done there as that user. Change only if you know who sent the link.' }),
    h('div', { class: 'field-row' }, stay, other && h('button', { type: 'button', onclick: take, text: `Change to ${other.user} in ${other.tenant}` }))));
  stay.focus();
}
