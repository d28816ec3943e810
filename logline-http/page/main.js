// The page: which view is shown, who looks at it, and the stream that all views share.

import { get, whenRefused } from './api.js';
import { failure, h, later, put } from './dom.js';
import { names } from './format.js';
import { go, here, to } from './router.js';
import { forget, hold, isOtherElsewhere, keep, takeFromAddress, token } from './session.js';
import { Feed } from './store.js';
import { follow } from './stream.js';
import * as approvals from './views/approvals.js';
import * as offered from './views/offered.js';
import * as overview from './views/overview.js';
import * as problems from './views/problems.js';
import * as prompts from './views/prompts.js';
import * as request from './views/request.js';
import * as requests from './views/requests.js';
import * as signIn from './views/sign_in.js';
import * as span from './views/span.js';
import * as spans from './views/spans.js';

const VIEWS = { overview, spans, span, requests, request, approvals, prompts, problems };
const PARENTS = { span: 'spans', request: 'requests' };
const SHORTCUTS = { o: 'overview', s: 'spans', r: 'requests', a: 'approvals', p: 'prompts', e: 'problems' };

const main = document.getElementById('main');
const stream = document.getElementById('stream');
const who = document.getElementById('who');
const signOut = document.getElementById('sign-out');
const announcer = document.getElementById('announce');
const help = document.getElementById('help');

let session = null;
let leave = () => {};
let shown = null;
// The heading of the view, and the tenant in which everything happens: the title of the tab names both.
let [heading, where] = ['', null];

function entitle(text) {
  heading = text;
  document.title = [heading, where, 'LogLine'].filter(Boolean).join(' · ');
}

// One sentence after a pause, not one for each row.
let lastSaid = '';
const say = later(() => { announcer.textContent = lastSaid; }, 800);
function announce(text) {
  lastSaid = text;
  say();
}

/** What views share: the feed of the timeline, who the token is for, and what the manifest says. */
class Session {
  // Whether the stream begins anew, so that rows may be missing before it.
  #isNew = true;

  constructor() {
    this.feed = new Feed();
    this.feeds = new Set([this.feed]);
    this.announce = announce;
    this.watchers = new Set();
    this.identity = get('identity');
    // Whoever needs them sees why they could not be read.
    this.identity.catch(() => {});
    const live = new Promise((heard) => { this.isLive = heard; });
    const letGo = hold(token());
    const unfollow = follow(token(), (message) => this.#hear(message));
    this.close = () => { letGo(); unfollow(); };
    // Runs are called by their functions, as soon as the names are there.
    const named = get('spans', { type: 'function', limit: 500 }).then(({ spans }) => spans.forEach(learnName), () => {});
    // What is read after the stream has begun leaves no gap before it. A stream that is slow to begin keeps nobody waiting: what came
    // in between is read when it is there.
    const begun = Promise.race([live, new Promise((late) => setTimeout(late, 1000))]);
    this.ready = Promise.all([begun.then(() => this.feed.older(200)), named]);
  }

  /** What the manifest says; null if it cannot be read. It is read once. */
  get trust() {
    this.trusting ??= get('trust').catch(() => { this.trusting = undefined; return null; });
    return this.trusting;
  }

  /** Calls `act` with each row that comes alive. Returns what ends it. */
  onRow(act) {
    this.watchers.add(act);
    return () => this.watchers.delete(act);
  }

  /** Gives another feed what comes alive. Returns what ends it. */
  feeding(feed) {
    this.feeds.add(feed);
    return () => this.feeds.delete(feed);
  }

  #hear(message) {
    if (message.kind === 'rows') {
      for (const row of message.rows) {
        if (row.entity_type === 'function') learnName(row);
        if (row.entity_type === 'manifest' || row.entity_type === 'delegation') this.trusting = undefined;
        this.feeds.forEach((feed) => feed.push(row));
        this.watchers.forEach((act) => act(row));
      }
      return;
    }
    showState(message);
    if (message.state === 'connecting' || message.state === 'reset') this.#isNew = true;
    if (message.state === 'reset') {
      this.feeds.forEach((feed) => {
        feed.clear();
        feed.older(200);
      });
    }
    if (message.state === 'live') {
      if (this.#isNew) this.feeds.forEach((feed) => feed.hasBegun && feed.catchUp());
      this.#isNew = false;
      this.isLive();
    }
    if (message.state === 'refused') refuse('The service does not take this token any more: it has ended, or was revoked.');
  }
}

function learnName(row) {
  if (row.name) names.set(row.id, row.name);
}

const STATES = {
  connecting: ['Connecting', 'off'], live: ['Live', 'live'], waiting: ['Reconnecting', 'waiting'], reset: ['Reading again', 'waiting'],
  refused: ['Token refused', 'bad'],
};

function showState({ state }) {
  const [text, kind] = STATES[state];
  stream.textContent = text;
  stream.dataset.state = kind;
}

function refuse(reason) {
  forget();
  session?.close();
  session = null;
  signOut.hidden = true;
  who.hidden = true;
  where = null;
  stream.textContent = 'Not connected';
  stream.dataset.state = 'off';
  show(signIn, { reason, onToken: begin });
}

function begin() {
  session?.close();
  session = new Session();
  signOut.hidden = false;
  who.hidden = true;
  where = null;
  const own = session;
  own.identity.then(({ user, tenant }) => {
    if (session !== own) return;
    put(who, h('strong', { text: tenant }), ` · ${user}`);
    who.title = `Signed in as ${user} in the tenant ${tenant}`;
    who.hidden = false;
    where = tenant;
    entitle(heading);
  }, () => {});
  render();
}

/** Shows what the address names. A token in it is taken at once only if nobody is signed in with another. */
async function arrive() {
  const text = takeFromAddress();
  const isOther = text !== null && text !== token();
  if (!session && token()) begin();
  else if (session || !isOther) render();
  if (!isOther) return;
  const take = () => { keep(text); begin(); };
  if (!token() && !(await isOtherElsewhere(text))) return take();
  show(offered, { offered: text, session, take, decline: render }).focus({ preventScroll: true });
}

function show(view, context) {
  leave();
  const head = h('h1', { tabindex: '-1', text: view.title(here()) });
  const content = h('div', { class: 'view' });
  put(main, head, content);
  entitle(head.textContent);
  let closed = false;
  const left = [() => { closed = true; }];
  leave = () => left.forEach((act) => act());
  const scope = {
    ...context,
    /** Sets the heading when it is known. */
    retitle: (text) => {
      if (closed) return;
      head.textContent = text;
      entitle(text);
    },
    /** Keeps what must end with the view. */
    ending: (act) => (closed ? act() : left.push(act)),
    isOpen: () => !closed,
  };
  Promise.resolve(view.render(content, scope)).catch((error) => {
    if (!closed && error.name !== 'AbortError') put(content, failure(error, render));
  });
  return head;
}

function render() {
  const route = here();
  for (const link of document.querySelectorAll('#views a')) {
    if (link.dataset.view === (PARENTS[route.name] ?? route.name)) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (!session) return show(signIn, { reason: null, onToken: begin });
  const view = Object.hasOwn(VIEWS, route.name) ? VIEWS[route.name] : overview;
  const isAnother = shown !== null && shown !== location.hash;
  shown = location.hash;
  const head = show(view, { route, session });
  // Whoever goes to another view by keys or with a reader begins at its heading.
  if (isAnother) head.focus({ preventScroll: true });
  scrollTo(0, 0);
}

const isTyping = (element) => element.matches?.('input, select, textarea, [contenteditable]');

let chord = 0;
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.key === 'Escape') {
    if (isTyping(event.target)) event.target.blur();
    else history.back();
    return;
  }
  if (isTyping(event.target)) return;
  if (event.key === '/') document.querySelector('[data-filter]')?.focus();
  else if (event.key === '?') help.showModal();
  else if (event.key === 'j' || event.key === 'k') document.dispatchEvent(new CustomEvent('logline-move', { detail: event.key === 'j' ? 1 : -1 }));
  else if (event.key === 'g') { chord = Date.now(); return; }
  else if (Date.now() - chord < 1500 && Object.hasOwn(SHORTCUTS, event.key)) go(to([SHORTCUTS[event.key]]));
  else return;
  chord = 0;
  event.preventDefault();
});

document.getElementById('skip').addEventListener('click', () => main.focus());
document.getElementById('show-help').addEventListener('click', () => help.showModal());
document.getElementById('close-help').addEventListener('click', () => help.close());
signOut.addEventListener('click', () => refuse('The token is forgotten.'));
whenRefused(() => refuse('The service does not take this token: it is malformed, has ended, or was revoked.'));
addEventListener('hashchange', () => arrive());

arrive();
