// What is loaded of the timeline: the newest versions, without gaps, up to a limit. Lists and charts read it, the stream adds to it.

import { get } from './api.js';
import { once } from './dom.js';
import { plain } from './format.js';

/** The most versions that are kept. Older ones are found by narrower filters. */
export const LIMIT = 100_000;
const PAGE = 500;
// What is told to the views in one go, also if nobody sees the page; and how many damaged rows are named.
const MOST_UNTOLD = 5000;
const MOST_DAMAGED = 1000;

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
  // Rows that came alive, of which the watchers do not know yet.
  #untold = [];
  #isAnother = false;
  // The page that is being read, and whether rows between pages and stream could not be.
  #page = null;
  #hasGap = false;
  #tellSoon = once(() => this.#tell());

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
    /** Whether pages were asked for. */
    this.hasBegun = false;
    /** How many rows came alive since the beginning. */
    this.born = 0;
    /** Rows of the pages that the service could not read: {id, seq, reason}. */
    this.damaged = [];
  }

  get length() {
    return this.#live.length + this.#read.length;
  }

  /** Row `index`, the newest first. */
  at(index) {
    const live = this.#live.length;
    return index < live ? this.#live[live - 1 - index] : this.#read[index - live];
  }

  /**
   * Calls `act` after changes, at most once in a frame, with {added, isAnother}: rows that came alive, oldest first, and whether all may be
   * others than before. Returns what ends it.
   */
  watch(act) {
    // Who comes now knows what is there.
    this.#tell();
    this.#watchers.add(act);
    return () => this.#watchers.delete(act);
  }

  #tell() {
    const told = { added: this.#untold, isAnother: this.#isAnother };
    [this.#untold, this.#isAnother] = [[], false];
    for (const act of this.#watchers) act(told);
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
    this.#untold.push(kept);
    this.born += 1;
    if (this.length > LIMIT) this.#drop();
    if (this.#untold.length >= MOST_UNTOLD) this.#tell();
    else this.#tellSoon();
  }

  #takeDamaged(rows) {
    this.damaged = [...this.damaged, ...rows].slice(0, MOST_DAMAGED);
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
    this.hasBegun = true;
    [this.cursor, this.isWhole, this.damaged] = [other.cursor, other.isWhole, other.damaged];
  }

  get isFull() {
    return this.length >= LIMIT || this.isCut;
  }

  /** Reads the next page of older rows. */
  async older(limit = PAGE) {
    if (this.isLoading || this.isWhole || this.isFull) return;
    [this.isLoading, this.hasBegun] = [true, true];
    this.#tellSoon();
    this.#page = this.#readPage(limit);
    await this.#page;
  }

  async #readPage(limit) {
    try {
      const page = await get('timeline', { ...this.params, limit: Math.min(limit, LIMIT - this.length), after: this.cursor });
      for (const row of page.spans) {
        const key = keyOf(row);
        if (this.#keys.has(key)) continue;
        this.#keys.add(key);
        this.#read.push(light(row));
      }
      this.#takeDamaged(page.damaged);
      this.cursor = page.next ?? null;
      this.isWhole = page.next === null;
      this.error = null;
    } catch (error) {
      this.error = error;
    } finally {
      this.isLoading = false;
      this.#tellSoon();
    }
  }

  /**
   * Reads what came after the pages and before the stream, which has begun: however much that is, down to the first row that was read
   * before. What came alive meanwhile stays before it.
   */
  async catchUp() {
    await this.#page;
    if (this.#read.length === 0 && this.cursor === undefined) return this.older(200);
    const known = new Set(this.#read.slice(0, PAGE).map(keyOf));
    const missed = [];
    try {
      let after;
      let isClosed = false;
      do {
        const page = await get('timeline', { ...this.params, limit: PAGE, after });
        for (const row of page.spans) {
          const key = keyOf(row);
          isClosed ||= known.has(key);
          if (isClosed || this.#keys.has(key)) continue;
          this.#keys.add(key);
          missed.push(light(row));
        }
        this.#takeDamaged(page.damaged);
        after = page.next;
        isClosed ||= !after || missed.length + this.#live.length >= LIMIT;
      } while (!isClosed);
      this.#read = [...missed, ...this.#read];
      while (this.length > LIMIT) this.#drop();
      [this.error, this.#hasGap] = [null, false];
    } catch (error) {
      missed.forEach((row) => this.#keys.delete(keyOf(row)));
      [this.error, this.#hasGap] = [error, true];
    }
    this.#isAnother = true;
    this.#tellSoon();
    return undefined;
  }

  /** Tries again what has failed. */
  again() {
    return this.#hasGap ? this.catchUp() : this.older();
  }

  /** Forgets everything, to be read again. */
  clear() {
    [this.#live, this.#read, this.#untold, this.damaged] = [[], [], [], []];
    this.#keys.clear();
    [this.cursor, this.isWhole, this.isCut, this.hasBegun, this.#hasGap, this.#isAnother] = [undefined, false, false, false, false, true];
    this.#tellSoon();
  }
}
