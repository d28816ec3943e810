// Elements. All text becomes text nodes; names of elements and attributes are written in this code, and no value becomes an address,
// except the fragments that `router.js` makes.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'text') element.textContent = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element: `h('p', {class: 'quiet'}, 'text', child)`. */
export const h = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

/** An element of SVG. */
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** Replaces the content of an element. */
export const put = (element, ...children) => {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
};

// A page that nobody sees has no frames.
const HIDDEN_FRAME = 250;

/** Calls `act` at most once in a frame, however often it is asked. */
export function once(act) {
  let isAsked = false;
  const run = () => { isAsked = false; act(); };
  return () => {
    if (isAsked) return;
    isAsked = true;
    if (document.hidden) setTimeout(run, HIDDEN_FRAME);
    else requestAnimationFrame(run);
  };
}

/** Calls `act` some time after it is asked, and not again before that, however often it is asked. `cancel` ends it. */
export function later(act, ms) {
  let timer = 0;
  const ask = () => { timer ||= setTimeout(() => { timer = 0; act(); }, ms); };
  ask.cancel = () => clearTimeout(timer);
  return ask;
}

/** A title, what it says, and what to do: for what is empty or failed. */
export const notice = (title, text, ...more) =>
  h('div', { class: 'notice' }, h('p', { class: 'notice-title', text: title }), text && h('p', { class: 'quiet', text }), ...more);

/** What failed, and what to do. */
export const failure = (error, again) => h('div', { class: 'notice notice-bad', role: 'alert' },
  h('p', { class: 'notice-title', text: 'This could not be read' }), h('p', { text: error.message }),
  again && h('button', { type: 'button', onclick: again, text: 'Try again' }));

const MOST_LEFT_OUT = 50;

// Which lists of damaged rows are open.
const opened = new Set();

/** How many rows could not be read, which, and why; null if all could. */
export function leftOut(damaged) {
  const all = [...new Map(damaged.map((row) => [`${row.id}/${row.seq}`, row])).values()];
  if (all.length === 0) return null;
  const count = all.length === 1 ? 'One row is left out: it' : `${all.length} rows are left out: they`;
  const details = h('details', { class: 'left-out' }, h('summary', { text: `${count} could not be read` }),
    h('ul', { class: 'links' }, all.slice(0, MOST_LEFT_OUT).map(({ id, seq, reason }) => h('li', {},
      h('code', { text: `${String(id).slice(0, 36)} v${String(seq).slice(0, 10)}` }), h('span', { class: 'quiet', text: String(reason).slice(0, 300) })))),
    all.length > MOST_LEFT_OUT && h('p', { class: 'quiet', text: `The first ${MOST_LEFT_OUT}.` }),
    h('p', { class: 'quiet', text: 'What the ledger has of these rows is damaged: logline fsck lists them all.' }));
  // A view that is drawn again leaves open what somebody has opened.
  const { id, seq } = all[0];
  const name = `${id}/${seq}/${all.length}`;
  details.open = opened.has(name);
  details.addEventListener('toggle', () => {
    if (opened.size > MOST_LEFT_OUT) opened.clear();
    if (details.open) opened.add(name);
    else opened.delete(name);
  });
  return details;
}

/** A table of these headings and rows, which scrolls by itself where it is too wide. */
export const table = (label, headings, rows, caption = null) => h('div', { class: 'table-room', tabindex: '0', role: 'region', 'aria-label': label },
  h('table', { class: 'table' }, caption, h('thead', {}, h('tr', {}, headings.map((name) => h('th', { scope: 'col', text: name })))), h('tbody', {}, rows)));

/** A status as a pill: its word, and a colour that says the same. */
export function pill(status, kind = kindOf(status)) {
  return h('span', { class: `pill pill-${kind}`, text: status });
}

const KINDS = {
  good: ['complete', 'active', 'ok', 'passed', 'promoted', 'closed'],
  bad: ['error', 'dead', 'failed', 'refused'],
  busy: ['running', 'scheduled', 'open', 'retrying'],
  warn: ['slow', 'cancelled', 'unchecked', 'parked'],
};

/** What a status stands for, for its colour. */
export const kindOf = (status) => Object.keys(KINDS).find((kind) => KINDS[kind].includes(status)) ?? 'plain';
