// What differs between two versions: by member, and within long texts by line.

import { h } from './dom.js';

const MOST_LINES = 500;
const MOST_SHOWN = 1000;
const MOST_TEXT = 4000;
const MOST_CHANGES = 200;

const isObject = (value) => typeof value === 'object' && value !== null;

/** What differs between two values: [{path, before, after}]; an absent value is undefined. */
export function differences(before, after, path = '') {
  if (before === after) return [];
  if (isObject(before) && isObject(after) && Array.isArray(before) === Array.isArray(after)) {
    const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
    const of = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);
    const step = (name) => (Array.isArray(before) ? `${path}[${name}]` : path ? `${path}.${name}` : name);
    return names.flatMap((name) => differences(of(before, name), of(after, name), step(name)));
  }
  return [{ path, before, after }];
}

/** The lines of two texts: [{kind: 'same' | 'gone' | 'new', text}]. */
export function lines(before, after) {
  const [a, b] = [before.split('\n'), after.split('\n')];
  if (a.length > MOST_LINES || b.length > MOST_LINES) {
    return [...a.map((text) => ({ kind: 'gone', text })), ...b.map((text) => ({ kind: 'new', text }))];
  }
  // The lengths of the longest common subsequences of all ends.
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      found.push({ kind: 'same', text: a[i] });
      [i, j] = [i + 1, j + 1];
    } else if (i < a.length && (j === b.length || common[i + 1][j] >= common[i][j + 1])) {
      found.push({ kind: 'gone', text: a[i] });
      i += 1;
    } else {
      found.push({ kind: 'new', text: b[j] });
      j += 1;
    }
  }
  return found;
}

const SIGNS = { same: ' ', gone: '−', new: '+' };
const WORDS = { gone: 'removed', new: 'added' };

const line = ({ kind, text }) => h('div', { class: `line line-${kind}` },
  h('span', { class: 'line-sign', 'aria-hidden': 'true', text: SIGNS[kind] }),
  WORDS[kind] && h('span', { class: 'unseen', text: `${WORDS[kind]}: ` }),
  h('span', { text: text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)} … (${text.length - MOST_TEXT} more characters)` : text }));

const asText = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));

function change({ path, before, after }) {
  const shown = before === undefined ? lines('', asText(after)).filter(({ kind }) => kind === 'new')
    : after === undefined ? lines(asText(before), '').filter(({ kind }) => kind === 'gone')
      : lines(asText(before), asText(after));
  return h('div', { class: 'change' }, h('h3', { class: 'change-path', text: path }),
    h('div', { class: 'lines', tabindex: '0', role: 'region', 'aria-label': `Change of ${path}` }, shown.slice(0, MOST_SHOWN).map(line),
      shown.length > MOST_SHOWN && h('p', { class: 'quiet', text: `… and ${shown.length - MOST_SHOWN} more lines` })));
}

// What changes with every version, stands beside it, and says nothing of what was meant.
const SEAL = ['curr_hash', 'prev_hash', 'signature', 'seq', 'at'];

/** The difference between two rows. */
export function diff(before, after) {
  const without = (row) => Object.fromEntries(Object.entries(row).filter(([name]) => !SEAL.includes(name)));
  const found = differences(without(before), without(after));
  if (found.length === 0) return h('p', { class: 'quiet', text: 'Nothing but time and seal differs.' });
  return h('div', { class: 'changes' }, found.slice(0, MOST_CHANGES).map(change),
    found.length > MOST_CHANGES && h('p', { class: 'quiet', text: `… and ${found.length - MOST_CHANGES} more members differ. The versions themselves have them all.` }));
}
