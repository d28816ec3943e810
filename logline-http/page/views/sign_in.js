// Where a token is given.

import { h, put } from '../dom.js';
import { keep } from '../session.js';

export const title = () => 'Give a token';

export function render(content, { reason, onToken }) {
  const field = h('input', { id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, placeholder: 'll_…' });
  const submit = (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    field.value = '';
    keep(text);
    onToken();
  };
  put(content, h('form', { class: 'sign-in', onsubmit: submit },
    reason && h('p', { class: 'reason', role: 'alert', text: reason }),
    h('p', { text: 'The page reads the ledger with the rights of a token, and sees what the token may see.' }),
    h('label', { for: 'token', text: 'Token' }),
    h('div', { class: 'field-row' }, field, h('button', { type: 'submit', class: 'primary', text: 'Open the ledger' })),
    h('p', { class: 'quiet', text: 'It stays in this tab until you close it. It is sent in headers to this service, and to nobody else.' })));
  field.focus();
}
