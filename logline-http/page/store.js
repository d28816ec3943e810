// What is loaded of the timeline: the newest versions, without gaps, up to a limit. Lists and charts read it, the stream adds to it.

import { get } from './api.js';

/** The most versions that are kept. Older ones are found by narrower filters. */
export const LIMIT = 100_000;
const PAGE = 500;

export const keyOf = (row) => `${row.tenant_id}/${row.id}/${row.seq}`;

/** Versions in append order that match `filter`, newest first by index. */
export class Feed {
  // Rows that came by the stream, oldest first; and rows that were read from pages, newest first.
  #live = [];
  #read = [];
  #keys = new Set();
  #watchers = new Set();

  constructor(params = {}) {
    /** What the service filters by. */
    this.params = params;
    this.cursor = undefined;
    /** Whether the beginning of the ledger is reached. */
    this.isWhole = false;
    /** Whether rows at the old end were dropped, because newer ones came. */
    this.isCut = false;
    this.isLoading = false;
    this.error = null;
  }

  get length() {
    return this.#live.length + this.#read.length;
  }

  /** Row `index`, the newest first. */
  at(index) {
    const live = this.#live.length;
    return index < live ? this.#live[live - 1 - index] : this.#read[index - live];
  }

  /** Calls `act` after each change, with the row that came alive or null. Returns what ends it. */
  watch(act) {
    this.#watchers.add(act);
    return () => this.#watchers.delete(act);
  }

  #changed(row) {
    for (const act of this.#watchers) act(row);
  }

  matches(row) {
    const { type, status, owner_id: owner } = this.params;
    return (!type || row.entity_type === type) && (!status || row.status === status) && (!owner || row.owner_id === owner);
  }

  /** Adds a row of the stream. */
  push(row) {
    const key = keyOf(row);
    if (!this.matches(row) || this.#keys.has(key)) return;
    this.#keys.add(key);
    this.#live.push(row);
    if (this.length > LIMIT) this.#drop();
    this.#changed(row);
  }

  #drop() {
    const dropped = this.#read.length > 0 ? this.#read.pop() : this.#live.shift();
    this.#keys.delete(keyOf(dropped));
    [this.isCut, this.isWhole] = [true, false];
  }

  /** Begins with the rows of another feed that match, if they have no gap. */
  seed(other) {
    if (other.isCut || (other.cursor === undefined && !other.isWhole)) return;
    for (let index = 0; index < other.length; index += 1) {
      const row = other.at(index);
      if (!this.matches(row)) continue;
      this.#read.push(row);
      this.#keys.add(keyOf(row));
    }
    [this.cursor, this.isWhole] = [other.cursor, other.isWhole];
  }

  get isFull() {
    return this.length >= LIMIT || this.isCut;
  }

  /** Reads the next page of older rows. */
  async older(limit = PAGE) {
    if (this.isLoading || this.isWhole || this.isFull) return;
    this.isLoading = true;
    this.#changed(null);
    try {
      const page = await get('timeline', { ...this.params, limit: Math.min(limit, LIMIT - this.length), after: this.cursor });
      for (const row of page.spans) {
        const key = keyOf(row);
        if (this.#keys.has(key)) continue;
        this.#keys.add(key);
        this.#read.push(row);
      }
      this.cursor = page.next ?? null;
      this.isWhole = page.next === null;
      this.error = null;
    } catch (error) {
      this.error = error;
    } finally {
      this.isLoading = false;
      this.#changed(null);
    }
  }

  /** Forgets everything, to be read again. */
  clear() {
    [this.#live, this.#read] = [[], []];
    this.#keys.clear();
    [this.cursor, this.isWhole, this.isCut] = [undefined, false, false];
    this.#changed(null);
  }
}
