// Server-sent events by fetch, because an EventSource sends no headers: a parser, and a connection that resumes after its last id.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;
// The service speaks every 15 seconds. A connection that is silent for longer is dead, whatever the network says.
const SILENCE = 45_000;

/** Cuts a stream of text into events {id, event, data}. `data` is null where a block has none, such as a heartbeat. */
export class Parser {
  #rest = '';

  /** The events that end in this piece of text. */
  push(text) {
    const blocks = (this.#rest + text).replaceAll('\r\n', '\n').split('\n\n');
    this.#rest = blocks.pop();
    return blocks.map((block) => {
      const found = { id: null, event: 'message', data: null };
      for (const line of block.split('\n')) {
        const colon = line.indexOf(':');
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (name === 'id') found.id = value;
        else if (name === 'event') found.event = value;
        else if (name === 'data') found.data = found.data === null ? value : `${found.data}\n${value}`;
      }
      return found;
    });
  }
}

/** How long to wait before try number `tries`: twice as long each time, and not all clients at once. */
export const pauseBefore = (tries, random = Math.random()) =>
  Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * (0.5 + random / 2);

/** The live timeline of one token. It tells `on` what happens: {kind: 'rows', rows, id}, {kind: 'state', state, …}. */
export class Timeline {
  #ended = false;
  #wake = () => {};
  #abort = null;

  constructor(base, token, on, after = null) {
    this.base = base;
    this.token = token;
    this.on = on;
    /** The last id: where the next connection goes on. */
    this.after = after;
    this.state = { kind: 'state', state: 'connecting' };
  }

  #tell(state, more = {}) {
    this.state = { kind: 'state', state, ...more };
    this.on(this.state);
  }

  /** Ends it. */
  close() {
    this.#ended = true;
    this.#abort?.abort();
    this.#wake();
  }

  /** Tries again now, if it waits. */
  hurry() {
    this.#wake();
  }

  /** Follows the timeline until it is closed, or the service does not take the token. */
  async run() {
    let tries = 0;
    while (!this.#ended) {
      const outcome = await this.#connect();
      if (this.#ended) return;
      if (outcome.refused) return this.#tell('refused', { reason: outcome.refused });
      if (outcome.reset) {
        // Its place is not known any more: what happened in between must be read again.
        this.after = null;
        this.#tell('reset');
        continue;
      }
      tries = outcome.opened ? 1 : tries + 1;
      const wait = Math.max(outcome.retryAfter ?? 0, pauseBefore(tries));
      this.#tell('waiting', { again: Date.now() + wait });
      await new Promise((done) => {
        const timer = setTimeout(done, wait);
        this.#wake = () => { clearTimeout(timer); done(); };
      });
    }
  }

  // One connection, until it ends for any reason.
  async #connect() {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    let watchdog = setTimeout(() => this.#abort.abort(), SILENCE);
    let opened = false;
    try {
      const headers = { authorization: `Bearer ${this.token}`, accept: 'text/event-stream' };
      if (this.after) headers['last-event-id'] = this.after;
      const response = await fetch(new URL('api/timeline/stream', this.base), { headers, signal, cache: 'no-store', credentials: 'omit' });
      if (!response.ok) {
        const problem = await response.json().catch(() => ({}));
        if (response.status === 401 || response.status === 403) return { refused: problem.code ?? 'invalid_token' };
        if (response.status === 400 && this.after) return { reset: true };
        return { retryAfter: Number(response.headers.get('retry-after')) * 1000 || 0 };
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new Parser();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return { opened };
        clearTimeout(watchdog);
        watchdog = setTimeout(() => this.#abort.abort(), SILENCE);
        // Rows that arrive together are told together: a busy ledger has a thousand in a second.
        const [rows, events] = [[], parser.push(value)];
        for (const event of events) {
          if (event.id) this.after = event.id;
          if (event.event === 'span' && event.data !== null) rows.push(JSON.parse(event.data));
        }
        if (!opened && events.length > 0) {
          opened = true;
          this.#tell('live');
        }
        if (rows.length > 0) this.on({ kind: 'rows', rows, id: this.after });
        for (const event of events) {
          if (event.event === 'end') {
            const { code } = JSON.parse(event.data);
            if (code === 'invalid_token' || code === 'not_permitted') return { refused: code };
            if (code === 'invalid_cursor') return { reset: true };
            return { opened };
          }
        }
      }
    } catch {
      return { opened };
    } finally {
      clearTimeout(watchdog);
      this.#abort.abort();
    }
  }
}
