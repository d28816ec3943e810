// The service, the tool and the browser that the checks of the page use.

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));
export const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
const require = createRequire(join(root, 'target/page-tools/package.json'));

export const axeSource = () => readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** A folder that is removed at the end. */
export function folder() {
  const path = mkdtempSync(join(tmpdir(), 'logline-page-'));
  process.on('exit', () => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A port that is free now, so that a service can come back to it. */
export const freePort = () => new Promise((found) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => found(port));
  });
});

/** The example `server` on a ledger. */
export class Service {
  /** `settings` are variables of its environment. */
  static async start(db, port, settings = {}) {
    const child = spawn(join(target, 'debug/examples/server'), ['--listen', `127.0.0.1:${port}`, '--db', db], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...settings } });
    process.on('exit', () => child.kill('SIGKILL'));
    let [out, log] = ['', ''];
    child.stderr.on('data', (data) => { log += data; });
    const ready = await new Promise((found, failed) => {
      child.stdout.on('data', (data) => {
        out += data;
        if (out.includes('\n')) found(JSON.parse(out.split('\n')[0]));
      });
      child.on('exit', () => failed(new Error(`the server did not start: ${log}`)));
    });
    return Object.assign(new Service(), ready, { child, log: () => log });
  }

  /** Ends it as an operator does, and waits until it is gone. */
  stop() {
    return new Promise((ended) => {
      this.child.removeAllListeners('exit');
      this.child.on('exit', ended);
      this.child.kill('SIGTERM');
    });
  }

  async call(method, path, body, headers = {}) {
    const response = await fetch(`${this.url}${path}`, {
      method, headers: { authorization: `Bearer ${this.token}`, ...(body && { 'content-type': 'application/json' }), ...headers }, body: body && JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer)}`);
    return answer;
  }

  get(path) {
    return this.call('GET', path);
  }

  post(path, body, headers) {
    return this.call('POST', path, body, headers);
  }
}

/** Runs the tool `logline` on a ledger. `statuses` are the exit statuses that are fine. */
export function logline(db, args, { input, statuses = [0] } = {}) {
  const ran = spawnSync(join(target, 'debug/logline'), ['--ledger', `sqlite:${db}`, ...args], { input, encoding: 'utf8', env: { ...process.env, RUST_LOG: 'error' } });
  if (!statuses.includes(ran.status)) throw new Error(`logline ${args.join(' ')}: ${ran.status}\n${ran.stdout}\n${ran.stderr}`);
  return ran.stdout;
}

/** A browser with a new profile, and nothing that calls home. */
export async function chromium(more = []) {
  const { chromium: browser } = require('playwright-core');
  return browser.launchPersistentContext(join(folder(), 'profile'), {
    executablePath: process.env.LOGLINE_CHROMIUM ?? '/usr/bin/chromium', headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
      ...more, '--disable-sync', '--disable-default-apps', '--disable-extensions', '--metrics-recording-only'],
    viewport: { width: 1280, height: 820 }, reducedMotion: 'reduce',
  });
}
