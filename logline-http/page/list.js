// A list of any length: only the rows that are to be seen are in the document. Rows are moved by keys, opened by Enter, and stay where they
// are when others come in above.

import { h } from './dom.js';

const ROW = 38;
const MARGIN = 8;

/**
 * A list over a `source` {length, at(index)}. `draw(row)` returns the cells of a row, `open(row)` opens it, `near` is called near the end.
 * `columns` are the headings.
 */
export class List {
  #rows = new Map();
  #active = 0;

  constructor({ label, columns, source, draw, open, near }) {
    Object.assign(this, { source, draw, open, near });
    this.inner = h('div', { class: 'list-inner', role: 'rowgroup' });
    this.head = h('div', { role: 'rowgroup' }, h('div', { class: 'list-row list-head', role: 'row', 'aria-rowindex': '1' },
      columns.map((name) => h('div', { role: 'columnheader', text: name }))));
    this.body = h('div', { class: 'list-body' }, this.inner);
    this.element = h('div', { class: 'list', role: 'grid', 'aria-label': label, 'aria-colcount': columns.length }, this.head, this.body);
    this.body.addEventListener('scroll', () => this.#paint(), { passive: true });
    this.element.addEventListener('keydown', (event) => this.#key(event));
    this.inner.addEventListener('click', (event) => {
      const index = Number(event.target.closest('[data-index]')?.dataset.index);
      if (Number.isNaN(index)) return;
      this.#active = index;
      // A link in the row does it by itself, and can be opened in another tab.
      if (!event.target.closest('a, button') && !getSelection().toString()) this.open(this.source.at(index));
    });
    this.resized = new ResizeObserver(() => this.#paint());
    this.resized.observe(this.body);
  }

  /** Draws what is to be seen again. `above` rows came in at the top. */
  refresh(above = 0) {
    if (above > 0) {
      const isReading = this.body.scrollTop > ROW || this.element.contains(document.activeElement);
      if (isReading) this.#active += above;
      if (this.body.scrollTop > ROW) {
        this.#size();
        this.body.scrollTop += above * ROW;
      }
    }
    this.#active = Math.max(0, Math.min(this.#active, this.source.length - 1));
    for (const row of this.#rows.values()) row.dataset.stale = 'yes';
    this.#paint();
  }

  /** Whether the newest rows are to be seen. */
  get isAtTop() {
    return this.body.scrollTop <= ROW;
  }

  toTop() {
    this.body.scrollTop = 0;
    this.#active = 0;
    this.#paint();
  }

  focus() {
    this.#show(this.#active);
  }

  close() {
    this.resized.disconnect();
  }

  #size() {
    this.inner.style.height = `${this.source.length * ROW}px`;
    this.element.setAttribute('aria-rowcount', String(this.source.length + 1));
  }

  #paint() {
    this.#size();
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW) - MARGIN);
    const last = Math.min(this.source.length, Math.ceil((this.body.scrollTop + this.body.clientHeight) / ROW) + MARGIN);
    const focused = this.inner.contains(document.activeElement) ? this.#active : -1;
    for (const [index, element] of this.#rows) {
      if (index >= first && index < last && element.dataset.stale !== 'yes') continue;
      element.remove();
      this.#rows.delete(index);
    }
    for (let index = first; index < last; index += 1) {
      if (!this.#rows.has(index)) this.#rows.set(index, this.#row(index));
    }
    // Readers of screens and keys go through the document in its order.
    const ordered = [...this.#rows].sort(([a], [b]) => a - b).map(([, element]) => element);
    ordered.forEach((element, at) => {
      if (this.inner.children[at] !== element) this.inner.insertBefore(element, this.inner.children[at] ?? null);
    });
    for (const [index, element] of this.#rows) element.tabIndex = index === this.#active ? 0 : -1;
    const isReachable = this.#rows.has(this.#active);
    if (!isReachable && ordered.length > 0) ordered[Math.min(MARGIN, ordered.length - 1)].tabIndex = 0;
    if (focused >= 0 && isReachable) this.#rows.get(this.#active).focus({ preventScroll: true });
    if (last >= this.source.length - 2 * MARGIN) this.near?.();
  }

  #row(index) {
    const element = h('div', { class: 'list-row', role: 'row', 'aria-rowindex': String(index + 2), 'data-index': String(index) },
      this.draw(this.source.at(index)));
    element.style.transform = `translateY(${index * ROW}px)`;
    element.addEventListener('focus', () => { this.#active = index; });
    return element;
  }

  #show(index) {
    if (this.source.length === 0) return;
    this.#active = Math.max(0, Math.min(index, this.source.length - 1));
    const top = this.#active * ROW;
    const { scrollTop, clientHeight } = this.body;
    if (top < scrollTop) this.body.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.body.scrollTop = top + ROW - clientHeight;
    this.#paint();
    this.#rows.get(this.#active)?.focus({ preventScroll: true });
  }

  /** Moves by so many rows, and says whether it did. */
  move(by) {
    this.#show(this.element.contains(document.activeElement) ? this.#active + by : this.#active);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.body.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (Object.hasOwn(moves, event.key)) {
      this.#show(Math.max(0, Math.min(this.source.length - 1, this.#active + moves[event.key])));
    } else if (event.key === 'Enter' && !event.target.closest('a, button')) {
      this.open(this.source.at(this.#active));
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
