// What is loaded of the timeline: the newest versions, without gaps, up to a limit. Lists and charts read it, the stream adds to it.

import { get } from './api.js';
import { plain } from './format.js';

/** The most versions that are kept. Older ones are found by narrower filters. */
export const LIMIT = 100_000;
const PAGE = 500;

const MOST_TEXT = 300;
const cut = (value) => (value === null || value === undefined ? value : plain(value, MOST_TEXT));

// What lists show of a row. A row may have a mebibyte, and a hundred thousand of them are kept: whoever opens one reads it again.
function light(row) {
  const { id, seq, entity_type, at, tenant_id, owner_id, status, is_deleted, parent_id, related_to, error } = row;
  const said = typeof error === 'object' && error !== null ? { code: cut(error.code), message: cut(error.message) } : cut(error);
  return {
    id, seq, entity_type, at, tenant_id, owner_id, status, is_deleted, parent_id, related_to: related_to?.slice(0, 20), error: error === undefined ? undefined : said,
    name: cut(row.name), this: cut(row.this), who: cut(row.who), did: cut(row.did),
  };
}

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
    const kept = light(row);
    this.#live.push(kept);
    if (this.length > LIMIT) this.#drop();
    this.#changed(kept);
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
        this.#read.push(light(row));
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

  /** Reads what came after the newest row that is known, or everything again if that is too far back. */
  async catchUp() {
    try {
      const { spans } = await get('timeline', { ...this.params, limit: 200 });
      const missed = spans.filter((row) => !this.#keys.has(keyOf(row)));
      if (missed.length === spans.length && this.length > 0) {
        this.clear();
        await this.older(200);
      } else {
        missed.reverse().forEach((row) => this.push(row));
      }
    } catch (error) {
      this.error = error;
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
