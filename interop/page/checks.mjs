// The page in Chromium, over the example server: what its users rely on, and what attackers try.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { serveDemo } from './demo.mjs';
import { line, seal } from './seal.mjs';
import { Service, axeSource, chromium, folder, freePort, logline, target } from './site.mjs';

const PATIENCE = 50_000;
const dir = folder();
const db = join(dir, 'demo.ledger');
let [service, made, settings, context, port] = [];
// Every address that any tab asked for, and what it said on its console.
const addresses = [];
const said = [];

const address = (view, token = service.token) => `${service.url}/#token=${token}&view=${encodeURIComponent(view)}`;

async function tab(view, { scheme, before: prepare, address: other } = {}) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  if (scheme) await page.emulateMedia({ colorScheme: scheme });
  if (prepare) await prepare(page);
  await page.goto(other ?? address(view));
  return page;
}

/** Waits until the view has read what it shows. */
const settled = (page) => page.waitForFunction(() => !/Reading …|Verifying …/.test(document.getElementById('main').innerText)
  && document.getElementById('stream').dataset.state === 'live');

const views = () => ({
  overview: '/overview', spans: '/spans', span: `/span/acme/${made.limit.id}/3`, requests: '/requests?show=open', request: `/request/${made.retried}`,
  approvals: '/approvals', prompts: '/prompts', problems: '/problems',
});

before(async () => {
  port = await freePort();
  ({ service, made, settings } = await serveDemo(db, dir, port));
  context = await chromium();
  context.on('request', (request) => addresses.push(request.url()));
  context.on('page', (page) => {
    page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) said.push(`${page.url()}: ${message.text()}`); });
    page.on('pageerror', (error) => said.push(`${page.url()}: ${error.message}`));
    page.on('dialog', (dialog) => { said.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  });
}, { timeout: 120_000 });

after(async () => {
  await context?.close();
  await service?.stop();
});

/** Changes rows behind the back of the service; `change` is Python with a connection `db`. */
const inDatabase = (change, ...values) => execFileSync('python3', ['-c', `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
triggers = db.execute("select name, sql from sqlite_master where type = 'trigger' and tbl_name = 'universal_registry'").fetchall()
for name, _ in triggers: db.execute(f'drop trigger "{name}"')
${change}
for _, sql in triggers: db.execute(sql)
db.commit()`, db, ...values]);

/** Imports a file beside the service; the time at its end. */
const importing = (file) => new Promise((done, failed) => {
  const args = ['--ledger', `sqlite:${db}`, 'import', file, '--trust', `${db}.trust.json`];
  execFile(join(target, 'debug/logline'), args, (error) => (error ? failed(error) : done(Date.now())));
});

const note = (name) => service.post('/api/spans', { entity_type: 'note', this: 'note.check', name, content: { text: name }, visibility: 'tenant' });

test('the first paint needs no data', async () => {
  const page = await tab('/spans', { before: (each) => each.route('**/api/**', () => {}) });
  await page.getByRole('heading', { level: 1, name: 'Spans' }).waitFor();
  await page.getByRole('link', { name: 'Overview' }).waitFor();
  await page.close();
});

test('without a token the page asks for one, and tells why one is not taken', async () => {
  const page = await tab('', { address: `${service.url}/` });
  await page.getByLabel('Token').fill('ll_acme_wrong');
  const count = said.length;
  await page.getByRole('button', { name: 'Open the ledger' }).click();
  await page.getByRole('alert').filter({ hasText: 'does not take this token' }).waitFor();
  // The browser itself notes the refusal; nothing else is said.
  assert.ok(said.splice(count).every((text) => text.includes('401')));
  assert.equal(await page.evaluate(() => sessionStorage.getItem('logline.token')), null);
  await page.getByLabel('Token').fill(service.token);
  await page.keyboard.press('Enter');
  await settled(page);
  await page.close();
});

test('a link with another token changes nothing until it is confirmed, in this tab and in a new one', async () => {
  const { token: other } = await service.post('/api/keys', { user: 'mallory', name: 'a link', permissions: ['spans:read'] });
  const shownIn = (page) => page.evaluate(() => [sessionStorage.getItem('logline.token'), document.getElementById('who').textContent, document.title]);
  const page = await tab('/overview');
  await settled(page);
  assert.deepEqual((await shownIn(page)).slice(1), ['acme · demo', 'Overview · acme · LogLine']);
  await page.goto(address('/spans', other));
  await page.getByRole('heading', { name: 'Change the token?' }).waitFor();
  await page.getByRole('alert').filter({ hasText: 'the user mallory in the tenant acme' }).waitFor();
  assert.equal((await shownIn(page))[0], service.token);
  assert.ok(!page.url().includes('ll_acme_'));
  await page.getByRole('button', { name: 'Stay demo in acme' }).click();
  await page.getByRole('heading', { level: 1, name: 'Spans' }).waitFor();
  assert.equal((await shownIn(page))[0], service.token);

  // A new tab has no token yet, but its user is signed in.
  const fresh = await tab('/spans', { address: address('/spans', other) });
  await fresh.getByRole('heading', { name: 'Change the token?' }).waitFor();
  assert.equal((await shownIn(fresh))[0], null);
  await fresh.getByRole('button', { name: 'Give a token of mine' }).click();
  await fresh.getByLabel('Token').waitFor();
  await fresh.goto(address('/spans', other));
  await fresh.getByRole('button', { name: 'Change to mallory in acme' }).click();
  await settled(fresh);
  assert.deepEqual((await shownIn(fresh)).slice(0, 2), [other, 'acme · mallory']);

  // What the service does not take replaces nothing either, and the same token again is no question.
  await page.goto(address('/overview', 'll_acme_wrong'));
  await page.getByText('a token that the service does not take').waitFor();
  said.splice(said.findIndex((text) => text.includes('401')), 1);
  assert.equal(await page.getByRole('button', { name: /^Change to/ }).count(), 0);
  await page.goto(address('/problems'));
  await page.getByRole('heading', { level: 1, name: 'Problems' }).waitFor();
  await Promise.all([page.close(), fresh.close()]);
});

for (const [scheme, width] of [['light', 1280], ['dark', 400]]) {
  test(`every view is accessible and says nothing on the console, ${scheme}, ${width} pixels wide`, { timeout: 120_000 }, async () => {
    const count = said.length;
    for (const [name, view] of [...Object.entries(views()), ['sign in', null]]) {
      const page = await tab(view, { scheme, before: (each) => each.setViewportSize({ width, height: 820 }), ...(view === null && { address: `${service.url}/` }) });
      if (view !== null) await settled(page);
      else await page.getByLabel('Token').waitFor();
      await page.evaluate(axeSource());
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      assert.deepEqual(violations.map(({ id, nodes }) => `${name}: ${id}: ${nodes[0].target} ${nodes[0].failureSummary}`), []);
      await page.close();
    }
    assert.deepEqual(said.slice(count), []);
  });
}

test('a span appears in open views by itself', async () => {
  const [list, overview] = await Promise.all([tab('/spans'), tab('/overview')]);
  await Promise.all([settled(list), settled(overview)]);
  const name = `live ${randomUUID()}`;
  await note(name);
  await Promise.all([list.getByRole('link', { name }).waitFor(), overview.getByRole('link', { name }).waitFor()]);
  await Promise.all([list.close(), overview.close()]);
});

test('all tabs share one stream', async () => {
  const tabs = await Promise.all(Array.from({ length: 5 }, () => tab('/spans')));
  await Promise.all(tabs.map(settled));
  const streams = async () => Number(/^logline_http_streams (\d+)/m.exec(await (await fetch(`${service.url}/metrics`)).text())[1]);
  assert.equal(await streams(), 1);
  const name = `shared ${randomUUID()}`;
  await note(name);
  await Promise.all(tabs.map((page) => page.getByRole('link', { name }).waitFor()));
  await Promise.all(tabs.map((page) => page.close()));
});

const states = (page) => page.locator('[data-check]').evaluateAll((all) => Object.fromEntries(all.map((each) => [each.dataset.check, each.dataset.state])));

test('where there are no shared workers, one tab holds the stream for the others, and another takes over', async () => {
  const prepare = (page) => page.addInitScript(() => { delete globalThis.SharedWorker; });
  const tabs = [];
  for (let count = 0; count < 3; count += 1) tabs.push(await tab('/spans', { before: prepare }));
  await Promise.all(tabs.map(settled));
  // The shared worker of earlier tabs is gone with them.
  await tabs[0].waitForFunction(async () => /^logline_http_streams 1$/m.test(await (await fetch('/metrics')).text()));
  const seen = async (pages) => {
    const name = `led ${randomUUID()}`;
    await note(name);
    await Promise.all(pages.map((page) => page.getByRole('link', { name }).waitFor()));
    assert.deepEqual(await Promise.all(pages.map((page) => page.getByRole('link', { name }).count())), pages.map(() => 1));
  };
  await seen(tabs);
  await tabs.shift().close();
  await seen(tabs);
  await Promise.all(tabs.map((page) => page.close()));
});

test('a sound row passes all five checks, and one that is in no log yet is not called verified', async () => {
  const page = await tab(`/span/acme/${made.limit.id}/3`);
  await page.getByRole('heading', { name: 'Verified: all five checks passed' }).waitFor();
  assert.deepEqual(await states(page), { hash: 'passed', signature: 'passed', link: 'passed', role: 'passed', inclusion: 'passed' });
  const { spans: [{ id }] } = await note('newer than the log');
  const newer = await tab(`/span/acme/${id}/0`);
  await newer.getByRole('heading', { name: '4 checks passed, 1 not checked' }).waitFor();
  assert.equal((await states(newer)).inclusion, 'unchecked');
  assert.match(await newer.locator('[data-check="inclusion"]').innerText(), /not among the \d+ leaves/);
  assert.doesNotMatch(await newer.locator('[data-verdict]').innerText(), /verified/i);
  await Promise.all([page.close(), newer.close()]);
});

test('a proof of another row, and a key that the manifest does not name, do not pass', async () => {
  const prepare = async (page) => {
    await page.route('**/proof?seq=3', async (route) => route.fulfill({ response: await route.fetch({ url: route.request().url().replace('seq=3', 'seq=2') }) }));
    await page.route('**/api/trust', async (route) => {
      const response = await route.fetch();
      const trust = await response.json();
      trust.manifest.metadata.authorities = [];
      await route.fulfill({ response, json: trust });
    });
  };
  const page = await tab(`/span/acme/${made.limit.id}/3`, { before: prepare });
  await page.locator('[data-verdict="failed"]').waitFor();
  const { inclusion, role } = await states(page);
  // A manifest that was changed on its way is not believed, whatever it says.
  assert.deepEqual([inclusion, role], ['failed', 'unchecked']);
  await page.close();
});

test('a row that was changed in the database fails, and so does the link of the next version', async () => {
  inDatabase(`
db.execute("update universal_registry set content = replace(content, '7500000', '9900000') where id = ? and seq = 1", (sys.argv[2],))
assert db.execute("select changes()").fetchone()[0] == 1`, made.limit.id);
  const expected = { 1: { hash: 'failed', signature: 'failed' }, 2: { hash: 'passed', signature: 'passed', link: 'failed' } };
  for (const [seq, wanted] of Object.entries(expected)) {
    const page = await tab(`/span/acme/${made.limit.id}/${seq}`);
    await page.locator('[data-verdict="failed"]').waitFor();
    for (const [name, state] of Object.entries(wanted)) assert.equal(await page.locator(`[data-check="${name}"]`).getAttribute('data-state'), state, `version ${seq}: ${name}`);
    assert.doesNotMatch(await page.locator('#main').innerText(), /\bverified\b/i);
    await page.close();
  }
});

test('every version of a long history can be opened and verified', async () => {
  const id = randomUUID();
  const versions = [];
  for (let seq = 0; seq < 700; seq += 1) {
    const at = new Date(Date.UTC(2026, 0, 1) + seq).toISOString().replace('Z', '000Z');
    versions.push(seal({ id, entity_type: 'note', tenant_id: 'acme', owner_id: 'demo', who: 'user:demo', this: 'note.check', name: `kept ${seq}`, at }, made.publisher, versions[seq - 1]));
  }
  const file = join(dir, 'long.ndjson');
  writeFileSync(file, versions.map(line).join(''));
  await importing(file);
  for (const seq of [null, 699, 450, 200, 199, 57, 1, 0]) {
    const page = await tab(`/span/acme/${id}${seq === null ? '' : `/${seq}`}`);
    await page.getByRole('heading', { level: 1, name: `kept ${seq ?? 699}`, exact: true }).waitFor();
    await page.locator('[data-verdict]').waitFor();
    const { hash, signature, link } = await states(page);
    assert.deepEqual([hash, signature, link], ['passed', 'passed', 'passed'], `version ${seq}`);
    assert.match(await page.locator('#main').innerText(), / of 700 versions/);
    await page.close();
  }
  const page = await tab(`/span/acme/${id}/57`);
  await page.getByRole('link', { name: 'Version 46', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'kept 46' }).waitFor();
  await page.close();
});

test('a row that was changed on its way fails', async () => {
  const page = await tab(`/span/acme/${made.limit.id}/3`, { before: (each) => each.route('**/api/timeline?id=*', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: (await response.text()).replace('lowered after', 'raised after') });
  }) });
  await page.locator('[data-verdict="failed"]').waitFor();
  await page.close();
});

test('where the browser has no WebCrypto, signatures are not checked and nothing is called verified', async () => {
  const other = await chromium(['--host-resolver-rules=MAP page.invalid 127.0.0.1']);
  const page = await other.newPage();
  await page.goto(`http://page.invalid:${port}/#token=${service.token}&view=${encodeURIComponent(`/span/acme/${made.limit.id}/3`)}`);
  // Nor does it know what other tabs have: a token of a link is taken only if that is confirmed.
  await page.getByRole('button', { name: 'Change to demo in acme' }).click();
  await page.locator('[data-verdict="unchecked"]').waitFor();
  assert.equal(await page.evaluate(() => isSecureContext), false);
  assert.equal(await page.locator('[data-check="hash"]').getAttribute('data-state'), 'passed');
  assert.equal(await page.locator('[data-check="signature"]').getAttribute('data-state'), 'unchecked');
  assert.match(await page.locator('[data-check="signature"]').innerText(), /secure contexts/);
  await other.close();
});

test('what a user wrote is text, wherever it is shown', async () => {
  const count = said.length;
  const page = await tab('/spans?q=onerror');
  const link = page.getByRole('link', { name: '<img src=x onerror=alert(1)>' });
  await link.waitFor();
  await link.click();
  await settled(page);
  await page.getByText('{{constructor.constructor').waitFor();
  assert.equal(await page.locator('main img, main script, main [href^="javascript:"], main b').count(), 0);
  assert.match(await page.title(), /onerror=alert/);
  assert.deepEqual(said.slice(count), []);
  // Even code that would write HTML is stopped by the policy of the page.
  const refused = await page.evaluate(() => { try { document.body.innerHTML = '<p>x'; return false; } catch (error) { return error instanceof TypeError; } });
  assert.ok(refused);
  said.splice(count);
  await page.close();
});

test('keys find, move, open and go back', async () => {
  const page = await tab('/spans');
  await settled(page);
  await page.locator('.list-row[data-index]').first().waitFor();
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.name), 'q');
  await page.keyboard.press('Escape');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('k');
  assert.equal(await page.evaluate(() => document.activeElement.dataset.index), '1');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => /^#\/(span|request)\//.test(location.hash));
  assert.equal(await page.evaluate(() => document.activeElement.tagName), 'H1');
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => location.hash.startsWith('#/spans'));
  await page.keyboard.press('?');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.keyboard.press('g');
  await page.keyboard.press('p');
  await page.waitForFunction(() => location.hash === '#/prompts');
  await page.close();
});

test('filters are in the address, ask the service, and a link to them can be shared', async () => {
  const page = await tab('/spans');
  await settled(page);
  await page.getByLabel('Type').fill('error_report');
  const names = () => page.locator('.list-row[data-index] .cell-type').allInnerTexts();
  await page.waitForFunction(() => document.querySelectorAll('.list-row[data-index]').length === 2);
  assert.deepEqual(await names(), ['error_report', 'error_report']);
  const shared = new URL(page.url()).hash.slice(1);
  const other = await tab(shared);
  await other.waitForFunction(() => document.querySelectorAll('.list-row[data-index]').length === 2);
  await Promise.all([page.close(), other.close()]);
});

test('a request that waits says why and until when; it is cancelled and revived', async () => {
  const page = await tab(`/request/${made.retried}`);
  await page.getByRole('heading', { name: /^Tried again in/ }).waitFor();
  await page.getByText('Attempt 4 failed: provider:unavailable').waitFor();
  assert.equal(await page.locator('.attempt').count(), 5);
  const later = await tab(`/request/${made.later}`);
  await later.getByRole('button', { name: 'Cancel', exact: true }).click();
  await later.getByRole('button', { name: 'Yes, cancel it' }).click();
  await later.getByRole('heading', { name: 'It has ended: cancelled' }).waitFor();
  await later.getByRole('button', { name: 'Revive' }).click();
  await later.getByRole('heading', { name: 'It has ended: complete' }).waitFor();
  await Promise.all([page.close(), later.close()]);
});

test('a proposal shows what it changes and how many approvals are missing', async () => {
  const page = await tab('/approvals');
  await page.getByText('1 of 2 approvals').waitFor();
  await page.getByText('input.rate').waitFor();
  await page.getByText(`logline approve ${made.proposal}`).waitFor({ state: 'attached' });
  await page.close();
});

test('a hundred thousand spans do not freeze the page', { timeout: 120_000 }, async () => {
  // The service's answers are made here, so that the page is measured and not the ledger.
  const rows = (await service.get('/api/timeline?limit=200')).spans
    .map(({ seq, entity_type, at, tenant_id, owner_id, who, this: about, status }) => ({ seq, entity_type, at, tenant_id, owner_id, who, this: about, status }));
  const page = await tab('/spans', { before: async (each) => {
    await each.route('**/api/timeline?*', (route) => {
      const params = new URL(route.request().url()).searchParams;
      const from = Number(params.get('after') ?? 0);
      const count = Math.min(Number(params.get('limit')), 250_000 - from);
      const spans = Array.from({ length: count }, (_, index) => ({ ...rows[(from + index) % rows.length], id: `00000000-0000-4000-8000-${String(from + index).padStart(12, '0')}`, name: `row ${from + index}` }));
      route.fulfill({ json: { spans, damaged: [], next: String(from + count), reached: null } });
    });
    await each.addInitScript(() => {
      globalThis.longest = 0;
      new PerformanceObserver((list) => { for (const entry of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, entry.duration); }).observe({ type: 'longtask', buffered: true });
    });
  } });
  await settled(page);
  await page.getByRole('button', { name: /^Read all/ }).click();
  await page.locator('.count', { hasText: '100,000 versions so far.' }).waitFor({ timeout: 90_000 });
  const loading = await page.evaluate(() => { const { longest } = globalThis; globalThis.longest = 0; return longest; });
  const scrolling = await page.evaluate(async () => {
    const body = document.querySelector('.list-body');
    let [worst, before] = [0, performance.now()];
    for (let step = 0; step <= 200; step += 1) {
      body.scrollTop = (body.scrollHeight * step) / 200;
      await new Promise(requestAnimationFrame);
      worst = Math.max(worst, performance.now() - before);
      before = performance.now();
    }
    return { worst, rows: document.querySelectorAll('.list-row[data-index]').length };
  });
  await page.getByRole('link', { name: 'row 99999' }).waitFor();
  assert.ok(scrolling.rows < 80, `${scrolling.rows} rows are in the document`);
  const began = Date.now();
  await page.getByLabel('Text in name').fill('row 9999');
  await page.locator('.count', { hasText: '11 versions so far.' }).waitFor();
  const filtering = Date.now() - began;
  const name = `while full ${randomUUID()}`;
  await page.getByLabel('Text in name').fill('');
  await page.locator('.count', { hasText: '100,000 versions so far.' }).waitFor();
  await note(name);
  await page.getByRole('link', { name }).waitFor();
  const longest = await page.evaluate(() => globalThis.longest);
  console.log(`100,000 spans: longest task ${Math.round(loading)} ms while loading, ${Math.round(longest)} ms after; slowest of 200 frames of scrolling ${Math.round(scrolling.worst)} ms; a text was found in ${filtering} ms`);
  // Generous: what is measured is printed, and a machine that does other things at the same time takes many times as long.
  assert.ok(loading < 5000 && longest < 5000 && scrolling.worst < 5000 && filtering < 25_000);
  await page.close();
});

test('a thousand rows in a second keep no view behind, and leave nothing out', { timeout: 180_000 }, async () => {
  const count = 10_000;
  const burst = randomUUID();
  const file = join(dir, 'burst.ndjson');
  const note = (index) => seal({ id: randomUUID(), entity_type: 'note', tenant_id: 'acme', owner_id: 'demo', who: 'user:demo', this: 'note.check', name: `burst ${burst} ${index}`,
    at: new Date().toISOString().replace('Z', '000Z') }, made.publisher);
  writeFileSync(file, Array.from({ length: count }, (_, index) => line(note(index))).join(''));
  const prepare = (each) => each.addInitScript(() => {
    globalThis.longest = 0;
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, entry.duration); }).observe({ type: 'longtask', buffered: true });
  });
  const [all, found, notes] = await Promise.all([tab('/spans', { before: prepare }), tab(`/spans?q=${burst}`, { before: prepare }), tab('/spans?type=note', { before: prepare })]);
  const pages = [all, found, notes];
  await Promise.all(pages.map(settled));
  const began = Date.now();
  const imported = importing(file);
  await Promise.all(pages.map((page) => page.getByRole('link', { name: `burst ${burst} ${count - 1}` }).waitFor({ timeout: 90_000 })));
  const shown = Date.now() - began;
  const appended = await imported - began;
  await found.locator('.count', { hasText: '10,000 versions' }).waitFor();
  const longest = Math.max(...await Promise.all(pages.map((page) => page.evaluate(() => globalThis.longest))));
  console.log(`${count} rows were appended in ${appended} ms and shown after ${shown} ms in three tabs; longest task ${Math.round(longest)} ms`);
  assert.ok(shown < appended + 30_000 && longest < 5000);
  await Promise.all(pages.map((page) => page.close()));
});

test('rows that came before a stream which is slow to begin are read, however many they are', { timeout: 60_000 }, async () => {
  const held = [];
  const slow = randomUUID();
  const page = await tab('/spans', { before: async (each) => {
    await each.addInitScript(() => { delete globalThis.SharedWorker; });
    await each.route('**/api/timeline/stream', (route) => new Promise((go) => { held.push(() => go(route.continue())); }));
  } });
  // The page has read its list, and still waits for the stream.
  await page.locator('.list-row[data-index]').first().waitFor();
  for (let call = 0; call < 7; call += 1) {
    await service.post('/api/spans', { spans: Array.from({ length: 100 }, (_, index) => ({ entity_type: 'note', this: 'note.check', name: `slow ${slow} ${call * 100 + index}`, visibility: 'tenant' })) });
  }
  held.forEach((go) => go());
  await settled(page);
  await page.getByLabel('Text in name').fill(slow);
  await page.locator('.count', { hasText: '700 versions' }).waitFor();
  await page.close();
});

test('after a restart the page goes on where it was: nothing is missing and nothing comes twice', { timeout: 90_000 }, async () => {
  const page = await tab('/spans');
  await settled(page);
  const count = said.length;
  await service.stop();
  await page.waitForFunction(() => document.getElementById('stream').dataset.state === 'waiting');
  // Written while nobody serves the page.
  const name = `away ${randomUUID()}`;
  const file = join(dir, 'away.ndjson');
  writeFileSync(file, line(seal({ id: randomUUID(), entity_type: 'note', tenant_id: 'acme', owner_id: 'demo', who: 'user:demo', this: 'note.check', name, at: new Date().toISOString().replace('Z', '000Z') }, made.publisher)));
  logline(db, ['import', file, '--trust', `${db}.trust.json`]);
  const old = service.token;
  service = await Service.start(db, port, settings);
  assert.notEqual(service.token, old);
  await page.getByRole('link', { name }).waitFor({ timeout: 45_000 });
  const next = `back ${randomUUID()}`;
  await note(next);
  await page.getByRole('link', { name: next }).waitFor();
  assert.deepEqual([await page.getByRole('link', { name }).count(), await page.getByRole('link', { name: next }).count()], [1, 1]);
  // The browser notes each connection that was refused, and nothing else is wrong.
  assert.ok(said.splice(count).every((text) => /ERR_|Failed to load|503/.test(text)));
  await page.close();
});

test('what the service could not read is counted and named, in lists and in the life of a request', async () => {
  const { id } = await service.post('/api/execute', { function: 'fee', input: { payment: 'pay_damaged', amount_minor: 5 } }, { prefer: 'wait=20' });
  const { spans: [{ id: broken }] } = await note('broken');
  inDatabase(`
set = "update universal_registry set metadata = '{' where id = ? and seq = ?"
db.execute(set, (sys.argv[2], 1))
db.execute(set, (sys.argv[3], 0))
assert db.execute("select count(*) from universal_registry where metadata = '{'").fetchone()[0] == 2`, id, broken);
  const list = await tab('/spans?type=note');
  await list.getByText('One row is left out: it could not be read').click();
  await list.getByText(`${broken} v0`).waitFor();
  const page = await tab(`/request/${id}`);
  await page.getByRole('heading', { name: 'It has ended: complete' }).waitFor();
  await page.getByText('One row is left out: it could not be read').first().click();
  await page.getByText(`${id} v1`).waitFor();
  const span = await tab(`/span/acme/${broken}/0`);
  await span.getByText('One row is left out: it could not be read').waitFor();
  // Also if the last version is damaged, of which the service can tell nothing.
  inDatabase(`
db.execute("update universal_registry set metadata = '{' where id = ?1 and seq = (select max(seq) from universal_registry where id = ?1)", (sys.argv[2],))`, id);
  const count = said.length;
  const part = await tab(`/request/${id}`);
  await part.getByRole('heading', { name: 'Its life, as far as it can be read' }).waitFor();
  await part.getByText('2 rows are left out: they could not be read').waitFor();
  assert.ok(said.splice(count).every((text) => text.includes('500')));
  await Promise.all([list.close(), page.close(), span.close(), part.close()]);
});

test('the token is in no address and in no log, and nothing was asked of another host', async () => {
  const page = await tab('/overview');
  await settled(page);
  assert.ok(!page.url().includes('ll_acme_'));
  assert.equal(await page.evaluate(() => JSON.stringify([localStorage, document.cookie]).includes('ll_acme_')), false);
  // What a browser asks for has no fragment: nothing of it leaves the tab.
  assert.deepEqual(addresses.map((each) => each.split('#')[0]).filter((each) => each.includes('ll_acme_')), []);
  const hosts = new Set(addresses.map((each) => new URL(each).host));
  assert.deepEqual([...hosts], [`127.0.0.1:${port}`]);
  assert.ok(!service.log().includes('ll_acme_'));
  assert.ok(!said.some((text) => text.includes(service.token)));
  await page.close();
});

test('the images that the documentation shows are there', () => {
  const page = readFileSync(new URL('../../docs/page.md', import.meta.url), 'utf8');
  for (const [, name] of page.matchAll(/\((images\/page-[a-z-]+\.png)\)/g)) readFileSync(new URL(`../../docs/${name}`, import.meta.url));
});
