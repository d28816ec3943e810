// A ledger with something in every view: a day of a payments service, made by the service, the tool and the importer.

import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { keyFile, line, seal } from './seal.mjs';
import { Service, logline } from './site.mjs';

const TENANT = 'acme';
const at = (msAgo) => new Date(Date.now() - msAgo).toISOString().replace(/Z$/, '000Z');
const MINUTE = 60_000;

// A row of numbers that looks like chance and is the same in every run.
function numbers(seed) {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

const pointer = (row) => ({ tenant: row.tenant_id, id: row.id, seq: row.seq, curr_hash: row.curr_hash });

function recorded(host, publisher, fee) {
  const next = numbers(7);
  const rows = [];
  const add = (draft, key = host, before = null) => {
    const row = seal({ id: randomUUID(), tenant_id: TENANT, owner_id: 'payments-api', who: `host:${key.public_key}`, ...draft }, key, before);
    rows.push(row);
    return row;
  };
  const runtime = (entity_type, minutes, draft) => add({ entity_type, at: at(minutes * MINUTE), ...draft });

  // An hour of executions: a quiet beginning, a busy middle, and a provider that is away for a while.
  for (let minute = 58; minute >= 1; minute -= 1) {
    const busy = 2 + Math.round(6 * Math.exp(-(((minute - 25) / 12) ** 2)) + 2 * next());
    for (let count = 0; count < busy; count += 1) {
      const isAway = minute > 18 && minute < 24;
      const failed = next() < (isAway ? 0.45 : 0.03);
      const failure = isAway ? { code: 'provider:unavailable', message: 'main: status 503, tried 3 times' } : { code: 'guest:no_amount', message: 'amount_minor is 0: send what is to be paid' };
      const execution = runtime('execution', minute - next(), {
        did: 'executed', this: 'function.run', name: 'fee', parent_id: fee.id, related_to: [randomUUID(), fee.id], status: failed ? 'error' : 'complete',
        duration_ms: Math.round(40 + 180 * next() + (isAway ? 900 * next() : 0)), metadata: { attempt: 1, worker: host.public_key },
        ...(failed ? { error: failure } : { output: { fee_minor: Math.round(next() * 400) } }),
      });
      if (next() < 0.3) {
        runtime('provider_execution', minute - next() * 0.5, {
          did: 'answered', this: 'provider.main', related_to: [execution.id], status: failed ? 'error' : 'complete',
          metadata: { details: { model: 'small-2', cost: { nanos: Math.round(400_000 + 2_600_000 * next()), currency: 'EUR' }, latency_ms: 300 + Math.round(900 * next()) } },
        });
      }
    }
  }

  // A limit that was changed three times, as a chain of versions.
  let limit = add({ entity_type: 'payout_limit', owner_id: 'treasury', who: 'user:treasury', did: 'set', this: 'limit.daily', name: 'Daily payout limit', status: 'active',
    at: at(55 * MINUTE), content: { currency: 'EUR', amount_minor: 5_000_000, countries: ['DE', 'FR'] } }, publisher);
  for (const [minutes, change] of [[40, { amount_minor: 7_500_000 }], [22, { countries: ['DE', 'FR', 'NL', 'ES'] }], [6, { amount_minor: 6_000_000, note: 'lowered after the incident of this morning' }]]) {
    const { public_key: _key, curr_hash: _hash, signature: _signature, prev_hash: _before, ...same } = limit;
    limit = add({ ...same, seq: limit.seq + 1, at: at(minutes * MINUTE), did: 'changed', content: { ...limit.content, ...change } }, publisher, limit);
  }

  const publish = (entity_type, name, metadata) => add({ entity_type, name, owner_id: 'publisher', who: 'publisher', did: 'published', this: `${entity_type}.${name}`, status: 'active', at: at(50 * MINUTE), metadata }, publisher);
  const variants = ['dispute@v1', 'dispute@v2', 'dispute@v3'].map((name) => publish('prompt_variant', name, { family: 'dispute', block_ids: [], run: { provider: randomUUID(), contract: 'answer' } }));
  const family = publish('prompt_family', 'dispute', { variants: variants.map((row) => row.id), floor: 0.05, window_days: 14 });
  const runs = [[212, 41], [268, 19], [96, 31]];
  runtime('prompt_posterior', 9, { did: 'learnt', this: 'prompt.dispute', name: 'dispute', parent_id: family.id, status: 'complete', owner_id: 'publisher', metadata: {
    family: pointer(family), draws: 16384, variants: variants.map((row, index) => ({ variant: pointer(row), name: row.name, seen: runs[index][0] + runs[index][1],
      runs: { good: runs[index][0], bad: runs[index][1] }, evals: { good: 0, bad: 0 }, share: [3112, 12404, 868][index], ...(index === 2 && { veto: 'latency_p95_ms' }) })) } });
  [[0.88, 0.79, 0.94], [0.95, 0.88, 0.98], [0.81, 0.7, 0.89]].forEach(([value, low, high], index) => runtime('prompt_eval_run', 30 - index, {
    did: 'evaluated', this: 'prompt.dispute', name: variants[index].name, parent_id: variants[index].id, status: 'complete', metadata: {
      family: 'dispute', counts: { passed: Math.round(80 * value), failed: 80 - Math.round(80 * value), error: 0 }, rate: { low, value, high }, latency_p95_ms: [1900, 1450, 4200][index],
      cost_nanos: [84_000_000, 71_000_000, 160_000_000][index], gate: index === 2 ? { passed: false, reasons: ['the rate may be as low as 70 %, 75 % is asked for'] } : { passed: true, reasons: [] } } }));
  for (let index = 0; index < 24; index += 1) {
    const variant = variants[index % 4 === 0 ? 0 : 1];
    runtime('prompt_run', 26 - index, { did: 'ran', this: 'prompt.dispute', name: variant.name, parent_id: variant.id, status: 'complete', output: { text: 'The payment was made twice; one is refunded.', confidence: 0.86 },
      metadata: { family: 'dispute', contract: index === 7 ? 'broken' : 'held', latency_ms: 700 + Math.round(900 * next()), model: 'small-2', cost: { nanos: 1_200_000, currency: 'EUR' } } });
  }

  // A request that is being retried: two attempts failed, the worker of one was lost, and the next is due in a while.
  let retried = null;
  const step = (secondsAgo, draft) => {
    const { public_key: _key, curr_hash: _hash, signature: _signature, prev_hash: _before, error: _error, ...same } = retried ?? {
      id: randomUUID(), entity_type: 'request', this: 'function.run', parent_id: fee.id, owner_id: 'payments-api', trace_id: 'e1f0c3a99b7d4c52', input: { payment: 'pay_7781', amount_minor: 12_900 } };
    const before = retried;
    retried = add({ ...same, at: at(secondsAgo * 1000), ...draft, metadata: { ...same.metadata, ...draft.metadata }, ...(before && { seq: before.seq + 1 }) }, host, before);
    return retried;
  };
  const away = { code: 'provider:unavailable', message: 'main: status 503, tried 3 times' };
  const attempt = (number, error, secondsAgo, ms) => runtime('execution', secondsAgo / 60, { did: 'executed', this: 'function.run', name: 'fee', parent_id: fee.id, related_to: [retried.id, fee.id],
    status: 'error', error, duration_ms: ms, metadata: { attempt: number, worker: host.public_key } }).id;
  const claim = (secondsAgo, number) => step(secondsAgo, { status: 'running', did: 'claimed', metadata: { attempt: number, worker: host.public_key, lease_ms: 60_000, lease_until: at((secondsAgo - 60) * 1000) } });
  step(900, { status: 'scheduled', did: 'requested', metadata: { attempt: 0, max_attempts: 8, backoff_ms: 60_000 } });
  claim(890, 1);
  step(868, { status: 'scheduled', did: 'failed', error: away, metadata: { execution: attempt(1, away, 868, 21_400), due_at: at(800 * 1000) } });
  claim(795, 2);
  claim(730, 3);
  step(700, { status: 'scheduled', did: 'failed', error: away, metadata: { execution: attempt(3, away, 700, 29_800), due_at: at(460 * 1000) } });
  claim(452, 4);
  step(430, { status: 'scheduled', did: 'failed', error: away, metadata: { execution: attempt(4, away, 430, 21_900), due_at: at(-24 * MINUTE) } });

  const failed = rows.filter((row) => row.error);
  runtime('error_report', 17, { did: 'reported', this: 'error_report', name: 'fee fails: provider:unavailable', status: 'open', parent_id: failed[0].id, error: failed[0].error });
  runtime('error_report', 4, { did: 'reported', this: 'error_report', name: 'fee fails: guest:no_amount', status: 'open', parent_id: failed.at(-1).id, error: failed.at(-1).error });
  runtime('escalation_request', 12, { did: 'escalated', this: 'prompt.low_confidence', name: 'A dispute needs a person', status: 'open', content: { text: 'The answer’s confidence is 0.41, below 0.6. Who decides about payment pay_7781?' } });
  runtime('policy_violation', 20, { did: 'refused', this: 'quota.exec.per_tenant.daily', name: 'Daily executions', status: 'open', metadata: { limit: 100_000, today: 100_000 } });
  // What a hostile user would write into a name. It is text everywhere.
  add({ entity_type: 'note', owner_id: 'mallory', who: 'user:mallory', this: 'note.meeting', name: '<img src=x onerror=alert(1)>', at: at(2 * MINUTE), status: 'open',
    content: { text: '</script><script>document.title = "owned"</script>', link: 'javascript:alert(1)' }, metadata: { '<b>': '{{constructor.constructor("alert(1)")()}}' } });
  return { rows, limit, retried };
}

/** A service on a ledger that has something in every view. Returns it, with what the checks look for. */
export async function serveDemo(db, folder, port) {
  const first = await Service.start(db, port);
  const made = await fill(first, db, folder);
  await first.stop();
  // The tenant's log is kept beside the service; its key signs nothing else.
  const [tiles, locks, key] = ['public', 'private', 'log.key'].map((name) => join(folder, name));
  logline(db, ['keygen', key]);
  const place = ['--tenant', TENANT, '--tiles', tiles, '--locks', locks, '--log-key', key];
  logline(db, ['log', 'run', ...place, '--until-idle']);
  const log = JSON.parse(logline(db, ['log', 'checkpoint', ...place, '--json']));
  const settings = { LOGLINE_SERVER_LOG_TILES: tiles, LOGLINE_SERVER_LOG_LOCKS: locks, LOGLINE_SERVER_LOG_KEY: log.key };
  return { service: await Service.start(db, port, settings), made, settings };
}

async function fill(service, db, folder) {
  const home = `${db}.keys`;
  const [host, publisher] = ['host', 'publisher'].map((name) => keyFile(join(home, `${name}.key`)));
  const fee = (await service.get('/api/spans?type=function')).spans.find((row) => row.name === 'fee');
  const { rows, limit, retried } = recorded(host, publisher, fee);
  const lines = join(folder, 'demo.ndjson');
  writeFileSync(lines, rows.sort((a, b) => (a.at === b.at ? a.seq - b.seq : a.at < b.at ? -1 : 1)).map(line).join(''));
  const imported = JSON.parse(logline(db, ['import', lines, '--trust', `${db}.trust.json`, '--json']));
  if (imported.refused !== 0 || imported.appended !== rows.length) throw new Error(`the importer refuses what the page's modules sealed: ${JSON.stringify(imported)}`);

  // A change that waits for a second approver.
  const approvers = [1, 2].map((number) => {
    const path = join(folder, `approver-${number}.key`);
    return { path, key: JSON.parse(logline(db, ['keygen', path, '--json'])).public_key };
  });
  const manifest = JSON.parse(logline(db, ['manifest', 'show']));
  for (const { key } of approvers) manifest.authorities.push({ key, role: 'approver', tenants: [TENANT] });
  manifest.governance = { promotion: 'optional', classes: { function: { threshold: 2, gates: [] } } };
  const file = join(folder, 'manifest.json');
  writeFileSync(file, JSON.stringify(manifest));
  logline(db, ['manifest', 'publish', file, '--key', join(home, 'root.key')]);
  const propose = (more) => /[0-9a-f-]{36}/.exec(logline(db, ['propose', 'function', 'fee', '--tenant', TENANT, ...more]))[0];
  const approve = (id, approver) => logline(db, ['approve', id, '--tenant', TENANT, '--key', approver.path], { input: 'yes\n' });
  const first = propose(['--reason', 'the first version of fee']);
  approvers.forEach((approver) => approve(first, approver));
  logline(db, ['promote', first, '--tenant', TENANT]);
  const module = join(folder, 'fee.wasm');
  writeFileSync(module, readFileSync(new URL('../../logline/examples/fee.wasm', import.meta.url)));
  logline(db, ['function', 'publish', module, '--tenant', TENANT, '--name', 'fee', '--config', '{"rate":30}']);
  const proposal = propose(['--reason', 'Card schemes raised their fees: 30 hundredths of a percent instead of 25 from the first of the month.']);
  approve(proposal, approvers[0]);

  const execute = (body, headers) => service.post('/api/execute', { function: 'fee', ...body }, headers);
  await Promise.all(Array.from({ length: 6 }, (_, index) => execute({ input: { payment: `pay_${index}`, amount_minor: 10_000 + index } }, { prefer: 'wait=20' })));
  const failing = await execute({ input: { payment: 'pay_bad', amount_minor: 0 } }, { prefer: 'wait=20' });
  const later = await execute({ input: { payment: 'pay_later', amount_minor: 900 }, due_at: new Date(Date.now() + 3 * 3_600_000).toISOString() });
  return { fee, limit, retried: retried.id, proposal, failing: failing.id, later: later.id, host, publisher };
}
