// Calls of the service's routes, with the tab's token in a header.

import { forget, token } from './session.js';

/** Where the service is: the folder of the page, so that it can be mounted below a path. */
export const base = new URL('.', document.baseURI).href;

/** An answer that is no success: the service's problem, or no answer at all. */
export class Refused extends Error {
  constructor(code, message, status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }

  /** Whether the token is the cause. */
  get isToken() {
    return this.code === 'invalid_token' || this.code === 'no_token';
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const MOST_TRIES = 5;

const refusal = async (response) => {
  try {
    const problem = await response.json();
    return new Refused(problem.code, problem.detail ?? problem.title, response.status);
  } catch {
    return new Refused('unknown', `the service answered with status ${response.status}`, response.status);
  }
};

let onToken = () => {};
/** Sets what is done when the service does not take the token. */
export const whenRefused = (act) => { onToken = act; };

async function call(method, path, signal) {
  for (let tries = 1; ; tries += 1) {
    let response;
    try {
      response = await fetch(new URL(path, base), {
        method, signal, cache: 'no-store', credentials: 'omit', headers: { authorization: `Bearer ${token()}`, accept: 'application/json' },
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Refused('unreachable', 'the service cannot be reached: is it running? The page tries again by itself');
    }
    if (response.ok) return response.json();
    const isLater = response.status === 429 || response.status === 503;
    if (isLater && method === 'GET' && tries < MOST_TRIES) {
      await pause(Math.min(10, Number(response.headers.get('retry-after')) || 1) * 1000);
      continue;
    }
    const refused = await refusal(response);
    if (refused.isToken) {
      forget();
      onToken(refused);
    }
    throw refused;
  }
}

const query = (params) => {
  const found = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return found.length > 0 ? `?${new URLSearchParams(found)}` : '';
};

/** Reads a route below `api/`. */
export const get = (path, params = {}, signal = undefined) => call('GET', `api/${path}${query(params)}`, signal);

/** Whom a token stands for, which is not this tab's; null if the service does not take it. */
export async function whose(text) {
  const headers = { authorization: `Bearer ${text}`, accept: 'application/json' };
  const response = await fetch(new URL('api/identity', base), { cache: 'no-store', credentials: 'omit', headers }).catch(() => null);
  return response?.ok ? response.json() : null;
}

/** Carries out a route below `api/` that changes something. It is not repeated by itself. */
export const post = (path) => call('POST', `api/${path}`);

/**
 * Reads up to `most` rows of a list, page by page, or until `isEnough` says so of a page. What the service could not read it names, and
 * that is added to the list `damaged`: the view says that it is left out.
 */
export async function rows(path, params, most, damaged, isEnough = () => false) {
  const found = [];
  let after;
  do {
    const page = await get(path, { ...params, limit: Math.min(500, most - found.length), after });
    found.push(...page.spans);
    damaged.push(...page.damaged);
    after = page.next;
    if (isEnough(page.spans)) break;
  } while (after && found.length < most);
  return found;
}
