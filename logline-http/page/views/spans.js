// All versions of all spans, as they come, with filters.

import { failure, h, leftOut, once, pill, put } from '../dom.js';
import { errorText, full, head, number, short, title as titleOf } from '../format.js';
import { List } from '../list.js';
import { go, restate, toSpan } from '../router.js';
import { Feed, LIMIT } from '../store.js';

export const title = () => 'Spans';

const FIELDS = [
  { name: 'q', label: 'Text in name', type: 'search' }, { name: 'type', label: 'Type', options: 'types' },
  { name: 'status', label: 'Status', options: 'statuses' }, { name: 'owner', label: 'Owner', options: 'owners' },
];

// A text is looked for in what a row is called and in what failed, not in all of its content.
const textOf = (row) => `${row.name ?? ''}\n${row.this}\n${row.who}\n${row.id}\n${errorText(row.error)}`.toLowerCase();

const TEXT = Symbol('the text of a row');
// How long a search may hold the page before it lets others do something.
const SLICE = 12;

/** The rows of a feed that have a text, the newest first. A long feed is searched in slices; `changed` is called after each. */
class Found {
  #live = [];
  #read = [];
  // How many rows of the feed were looked at, from the newest, when so many had come alive.
  #looked = 0;
  #born = 0;
  #timer = 0;

  constructor(feed, text, changed) {
    [this.feed, this.text, this.changed, this.#born] = [feed, text.toLowerCase(), changed, feed.born];
    this.extend();
  }

  #has(row) {
    if (!this.text) return true;
    row[TEXT] ??= textOf(row);
    return row[TEXT].includes(this.text);
  }

  /** Looks at what the feed has more than before: after pages were read. */
  extend() {
    if (!this.text || this.#timer) return;
    const end = performance.now() + SLICE;
    // What has come alive since then is before them.
    const place = () => this.#looked + this.feed.born - this.#born;
    while (place() < this.feed.length && (this.#looked % 64 !== 0 || performance.now() < end)) {
      const row = this.feed.at(place());
      this.#looked += 1;
      if (this.#has(row)) this.#read.push(row);
    }
    this.#trim();
    if (place() < this.feed.length) this.#timer = setTimeout(() => { this.#timer = 0; this.extend(); this.changed(); });
  }

  /** Takes rows that came alive, oldest first. Returns how many of them are of these. */
  take(added) {
    if (!this.text) return added.length;
    const found = added.filter((row) => this.#has(row));
    for (const row of found) this.#live.push(row);
    this.#looked += added.length;
    this.#born += added.length;
    this.#trim();
    return found.length;
  }

  /** Looks at everything again: the feed has other rows than before. */
  restart() {
    [this.#live, this.#read, this.#looked, this.#born] = [[], [], 0, this.feed.born];
    this.extend();
  }

  // The feed drops its oldest rows when it is full.
  #trim() {
    while (this.#live.length + this.#read.length > LIMIT) {
      if (this.#read.length > 0) this.#read.pop();
      else this.#live.shift();
    }
  }

  close() {
    clearTimeout(this.#timer);
  }

  get length() {
    return this.text ? this.#live.length + this.#read.length : this.feed.length;
  }

  at(index) {
    if (!this.text) return this.feed.at(index);
    const live = this.#live.length;
    return index < live ? this.#live[live - 1 - index] : this.#read[index - live];
  }
}

/** The cells of a row. */
export function cells(row) {
  const label = titleOf(row);
  return [
    h('div', { role: 'gridcell', class: 'cell-time', title: full(row.at) }, h('time', { datetime: row.at, text: short(row.at) })),
    h('div', { role: 'gridcell', class: 'cell-type', text: row.entity_type }),
    h('div', { role: 'gridcell', class: 'cell-name' },
      h('a', { href: toSpan(row), tabindex: '-1', text: label }),
      row.is_deleted && h('span', { class: 'tag', text: 'tombstone' }),
      row.error ? h('span', { class: 'cell-error', text: errorText(row.error) }) : row.this !== label && h('span', { class: 'quiet', text: row.this })),
    h('div', { role: 'gridcell', class: 'cell-status' }, row.status ? pill(row.status) : h('span', { class: 'quiet', text: '–' })),
    h('div', { role: 'gridcell', class: 'cell-owner', text: row.owner_id }),
    h('div', { role: 'gridcell', class: 'cell-id' }, h('code', { text: `${head(row.id)} v${row.seq}` })),
  ];
}

export const COLUMNS = ['Time', 'Type', 'Name', 'Status', 'Owner', 'Id, version'];

function filters(params, change) {
  const lists = { types: h('datalist', { id: 'types' }), statuses: h('datalist', { id: 'statuses' }), owners: h('datalist', { id: 'owners' }) };
  const inputs = FIELDS.map(({ name, label, type, options }) => {
    const input = h('input', {
      id: `filter-${name}`, name, type: type ?? 'text', list: options, value: params[name], autocomplete: 'off', spellcheck: 'false',
      'data-filter': name === 'q', placeholder: name === 'q' ? 'Press / to search' : 'all',
    });
    input.addEventListener('input', () => change(name, input.value));
    return h('div', { class: `field field-${name}` }, h('label', { for: `filter-${name}`, text: label }), input);
  });
  const quick = h('div', { class: 'quick', role: 'group', 'aria-label': 'Usual filters' });
  const element = h('form', { class: 'filters', role: 'search', onsubmit: (event) => event.preventDefault() }, inputs, Object.values(lists), quick);
  const set = (values) => {
    for (const { name } of FIELDS) element.querySelector(`[name="${name}"]`).value = values[name] ?? '';
    change(null, values);
  };
  for (const [label, values] of [['All', {}], ['Failed', { status: 'error' }], ['Executions', { type: 'execution' }], ['Failed executions', { type: 'execution', status: 'error' }]]) {
    quick.append(h('button', { type: 'button', class: 'chip', onclick: () => set(values), 'data-values': JSON.stringify(values), text: label }));
  }
  const mark = (values) => {
    for (const chip of quick.children) {
      const own = JSON.parse(chip.dataset.values);
      chip.setAttribute('aria-pressed', String(FIELDS.every(({ name }) => (own[name] ?? '') === (values[name] ?? ''))));
    }
  };
  mark(params);
  return { element, lists, mark };
}

export async function render(content, { route, session, ending, isOpen }) {
  let params = { ...route.params };
  let [feed, found, list, unwatch] = [null, null, null, () => {}];
  const count = h('p', { class: 'count', 'aria-live': 'off' });
  const fresh = h('button', { type: 'button', class: 'fresh', hidden: true, onclick: () => { list.toTop(); fresh.hidden = true; unseen = 0; } });
  const foot = h('div', { class: 'list-foot' });
  let unseen = 0;

  const serverParams = () => ({ type: params.type?.trim(), status: params.status?.trim(), owner_id: params.owner?.trim() });
  const isOwn = () => !Object.values(serverParams()).some(Boolean);

  const showCount = () => {
    const limit = feed.isFull ? ` The page keeps ${number(LIMIT)}: narrow the filters to see older ones.` : '';
    const text = `${number(found.length)} ${found.length === 1 ? 'version' : 'versions'}${feed.isWhole ? '' : ' so far'}.${limit}`;
    if (count.textContent !== text) {
      count.textContent = text;
      session.announce(text);
    }
    // Buttons stay the same as long as they say the same, so that a click on one reaches it while rows come in.
    const state = JSON.stringify([feed.isWhole, feed.isFull, feed.isLoading, feed.error?.message, feed.damaged.length, found.length === 0]);
    if (foot.dataset.state === state) return;
    foot.dataset.state = state;
    const canRead = !feed.isWhole && !feed.isFull;
    put(foot, feed.error && failure(feed.error, () => feed.again()),
      feed.isLoading && h('span', { class: 'quiet', text: 'Reading older versions …' }),
      !feed.isLoading && canRead && h('button', { type: 'button', onclick: () => feed.older(), text: 'Read older' }),
      canRead && h('button', { type: 'button', class: 'plain', onclick: readAll, text: `Read all, up to ${number(LIMIT)}` }),
      feed.isWhole && found.length === 0 && h('span', { text: 'No span matches. Take a filter away, or look whether the token may see it.' }),
      feed.isWhole && found.length > 0 && h('span', { class: 'quiet', text: 'This is the beginning of the ledger.' }),
      leftOut(feed.damaged));
  };

  let reading = false;
  const readAll = async () => {
    if (reading) return;
    reading = true;
    const whole = feed;
    while (isOpen() && feed === whole && !whole.isWhole && !whole.isFull && !whole.error) await whole.older();
    reading = false;
  };

  const learn = () => {
    const known = { types: new Set(), statuses: new Set(), owners: new Set() };
    for (let index = 0; index < Math.min(2000, session.feed.length); index += 1) {
      const row = session.feed.at(index);
      known.types.add(row.entity_type);
      if (row.status) known.statuses.add(row.status);
      known.owners.add(row.owner_id);
    }
    for (const [name, values] of Object.entries(known)) {
      put(bar.lists[name], [...values].sort().map((value) => h('option', { value })));
    }
  };

  const repaint = once(() => {
    if (!isOpen()) return;
    list.refresh();
    showCount();
  });

  const start = () => {
    unwatch();
    feed = isOwn() ? session.feed : new Feed(serverParams());
    if (feed !== session.feed) feed.seed(session.feed);
    found?.close();
    found = new Found(feed, params.q ?? '', repaint);
    list.source = found;
    const stopFeed = feed.watch(({ added, isAnother }) => {
      const more = found.take(added);
      if (isAnother) found.restart();
      else found.extend();
      const isAtTop = list.isAtTop;
      list.refresh(more);
      unseen = isAtTop ? 0 : unseen + more;
      fresh.hidden = unseen === 0;
      if (more > 0) fresh.textContent = `${number(unseen)} new: show`;
      showCount();
    });
    const stopRow = feed === session.feed ? () => {} : session.feeding(feed);
    unwatch = () => { stopFeed(); stopRow(); };
    unseen = 0;
    fresh.hidden = true;
    list.toTop();
    list.refresh();
    showCount();
    // The session reads its own, as soon as its stream is there.
    if (feed !== session.feed && feed.cursor === undefined) feed.older(200);
  };

  let typing = 0;
  const change = (name, value) => {
    params = name === null ? { ...value } : { ...params, [name]: value };
    restate(['spans'], params);
    bar.mark(params);
    clearTimeout(typing);
    typing = setTimeout(start, name === null || name === 'q' ? 60 : 250);
  };
  const bar = filters(params, change);
  // While a text matches little, older rows are looked at too, but not without an end.
  const near = () => {
    if (!feed || feed.isLoading || feed.error || feed.isWhole || feed.isFull) return;
    if (found.text && found.length < 50 && feed.length > 5000) return;
    feed.older();
  };
  list = new List({ label: 'Versions of spans, newest first', columns: COLUMNS, source: session.feed, draw: cells, open: (row) => go(toSpan(row)), near });
  put(content, bar.element, h('div', { class: 'list-bar' }, count, fresh), list.element, foot);
  content.classList.add('view-list');
  start();
  await session.ready;
  learn();
  const move = ({ detail }) => list.move(detail);
  document.addEventListener('logline-move', move);
  ending(() => { unwatch(); found.close(); list.close(); document.removeEventListener('logline-move', move); });
}
