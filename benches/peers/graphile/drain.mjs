// graphile-worker with its default settings and 8 workers: `node drain.mjs URL JOBS`.
//
// Prints one JSON object: jobs per second from the start of the workers until no job is left in the table, and the time in
// milliseconds from before `addJob` until the job's row is deleted, at 100 jobs a second.
import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import pg from "pg";

const [connectionString, count] = [process.argv[2], Number(process.argv[3])];
const logger = new Logger(() => () => {});
await runMigrations({ connectionString, logger });
const pool = new pg.Pool({ connectionString, max: 4 });
const utils = await makeWorkerUtils({ pgPool: pool, logger });
const pause = (millis) => new Promise((resolve) => setTimeout(resolve, millis));
const left = async () => Number((await pool.query("SELECT count(*) FROM graphile_worker._private_jobs")).rows[0].count);
const work = (taskList) =>
  run({ connectionString, logger, taskList, concurrency: 8, maxPoolSize: 10, noHandleSignals: true, pollInterval: 1000 });

for (let first = 0; first < count; first += 500) {
  const jobs = Array.from({ length: Math.min(500, count - first) }, (_, n) => ({ identifier: "echo", payload: { n: first + n } }));
  await utils.addJobs(jobs);
}
let done = 0;
const started = performance.now();
let runner = await work({ echo: (payload) => (done++, payload) });
while (done < count) await pause(2);
while (await left()) await pause(2);
const perSecond = (count / (performance.now() - started)) * 1000;
await runner.stop();

// The end of a job is the commit that deletes its row. A trigger notes when that was.
await pool.query(`CREATE TABLE ended (id bigint, at timestamptz);
  CREATE FUNCTION note_end() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO ended VALUES (OLD.id, clock_timestamp()); RETURN NULL; END $$;
  CREATE TRIGGER note_end AFTER DELETE ON graphile_worker._private_jobs FOR EACH ROW EXECUTE FUNCTION note_end()`);
runner = await work({ echo: (payload) => payload });
await pause(500);
const sent = new Map();
for (let n = 0; n < 1000; n++) {
  const before = Date.now();
  utils.addJob("echo", { n }).then((job) => sent.set(String(job.id), before));
  await pause(10);
}
while (await left()) await pause(10);
const ended = (await pool.query("SELECT id, extract(epoch FROM at) * 1000 AS at FROM ended")).rows;
const millis = ended.map((row) => Number(row.at) - sent.get(String(row.id))).sort((a, b) => a - b);
const at = (share) => millis[Math.floor((millis.length - 1) * share)];
await runner.stop();
await utils.release();
await pool.end();
console.log(JSON.stringify({ perSecond, p50: at(0.5), p95: at(0.95) }));
process.exit(0);
