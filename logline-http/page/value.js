// JSON as people read it: indented, with its parts told apart. A large value is shown as text.

import { h } from './dom.js';

const MOST_PARTS = 3000;
const MOST_TEXT = 50_000;
// Browsers take seconds to break a long text in some scripts.
const MOST_VALUE = 20_000;

function parts(value, depth, out) {
  const indent = '  '.repeat(depth);
  if (out.length > MOST_PARTS) return;
  if (value === null || typeof value !== 'object') {
    const text = JSON.stringify(value);
    const shown = text.length > MOST_VALUE ? `${text.slice(0, MOST_VALUE)}… (${text.length - MOST_VALUE} more characters)` : text;
    out.push(h('span', { class: `json-${value === null ? 'null' : typeof value}`, text: shown }));
    return;
  }
  const isList = Array.isArray(value);
  const entries = isList ? value.map((item) => [null, item]) : Object.entries(value);
  if (entries.length === 0) {
    out.push(isList ? '[]' : '{}');
    return;
  }
  out.push(isList ? '[' : '{');
  entries.forEach(([name, item], index) => {
    if (out.length > MOST_PARTS) return;
    out.push(`${index > 0 ? ',' : ''}\n${indent}  `);
    if (name !== null) out.push(h('span', { class: 'json-name', text: JSON.stringify(name) }), ': ');
    parts(item, depth + 1, out);
  });
  out.push(`\n${indent}${isList ? ']' : '}'}`);
}

/** A value as a block that can be scrolled and focused. */
export function json(value, label) {
  const out = [];
  parts(value, 0, out);
  const block = h('pre', { class: 'json', tabindex: '0', role: 'region', 'aria-label': label });
  if (out.length <= MOST_PARTS) {
    block.append(...out);
    return block;
  }
  const text = JSON.stringify(value, null, 2);
  block.textContent = text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}\n… (${text.length - MOST_TEXT} more characters)` : text;
  return block;
}
