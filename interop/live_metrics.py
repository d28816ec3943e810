"""Makes the example server do what its dashboard and its alerts measure, and looks for each of their metrics in one scrape.

live_metrics.py URL TOKEN LOGLINE LEDGER: LOGLINE is the tool, LEDGER the server's ledger, into which it publishes a policy and a schedule.
"""

import concurrent.futures
import http.client
import json
import pathlib
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SERVER = pathlib.Path(__file__).parent.parent / "examples/server"

# Metrics that this server does not have, and why. Counters of faults of the store, of lost races, of shared keys and of parked requests are
# there without a fault: they begin at zero.
ELSEWHERE = {
    "logline_log_failures_total": "the transparency log is kept by a host that installs its loop; this server only reads its files",
}

# Those that must have counted something after what is done here.
COUNTED = {
    "logline_append_spans_count",
    "logline_append_spans_sum",
    "logline_attempts_total",
    "logline_attempt_seconds_bucket",
    "logline_claims_total",
    "logline_http_rate_limited_total",
    "logline_http_request_seconds_bucket",
    "logline_http_requests_total",
    "logline_http_tokens_refused_total",
    "logline_ledger_seconds_bucket",
    "logline_memory_searches_total",
    "logline_memory_upserts_total",
    "logline_policy_effects_total",
    "logline_policy_spans_total",
    "logline_sandbox_seconds_bucket",
    "logline_slots_total",
    "logline_tail_lag_seconds_bucket",
    "gen_ai_client_inference_duration_bucket",
    "gen_ai_client_inference_usage_tokens_total",
}


def is_limited(url, token):
    """Whether calls one after the other, on one connection, are limited within a minute."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        connection.request("GET", "/api/identity", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status == 429:
            return True
    return False


def named():
    """The metrics that the dashboard and the rules name."""
    found = set()

    def walk(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "expr":
                    found.update(re.findall(r"\b(?:logline|gen_ai)_[a-z_]+", inner))
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(json.loads((SERVER / "grafana.json").read_text()))
    for line in (SERVER / "alerts.yml").read_text().splitlines():
        if line.strip().startswith("expr:"):
            found.update(re.findall(r"\b(?:logline|gen_ai)_[a-z_]+", line))
    # Labels in `by (…)` and in selectors are no metrics.
    return {name for name in found if not name.startswith("gen_ai_request") and not name.startswith("gen_ai_provider")}


def main(url, token, logline, ledger):
    def call(path, body=None, headers=None, bearer=token):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data=data)
        for name, value in {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json", **(headers or {})}.items():
            request.add_header(name, value)
        # An answer 429 is waited out.
        for _ in range(100):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                if error.code != 429:
                    return error.code, error.read().decode()
                time.sleep(float(error.headers["Retry-After"]))
        raise SystemExit(f"{path} stays limited")

    def done(path, body=None, headers=None, expected=(200, 201)):
        status, text = call(path, body, headers)
        if status not in expected:
            raise SystemExit(f"{path}: {status} {text}")
        return text

    fee = {"function": "fee", "input": {"payment": "pay_live", "amount_minor": 10000}}
    policy = {
        "entity_type": "policy",
        "name": "seen",
        "language": "cel",
        "content": {
            "on": ["note"],
            "when": "true",
            "then": [{"emit": {"entity_type": "metric", "this": "metric.seen"}}],
        },
    }
    function = json.loads(done("/api/spans?type=function&limit=1"))["spans"][0]
    schedule = {
        "entity_type": "function",
        "name": "every_second",
        "status": "scheduled",
        "runtime": function["runtime"],
        "code": function["code"],
        "input": {"rate": 25},
        "metadata": {"schedule": {"every_ms": 1000, "input": {"payment": "tick", "amount_minor": 1}}},
    }
    drafts = "\n".join(json.dumps(draft) for draft in (policy, schedule))
    publish = [logline, "publish", "-", "--ledger", ledger, "--tenant", "acme"]
    subprocess.run(publish, input=drafts, text=True, check=True, stdout=subprocess.DEVNULL)

    # A stream for as long as rows come.
    request = urllib.request.Request(url + "/api/timeline/stream?type=note", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as stream:
        stream.readline()
        done("/api/spans", {"entity_type": "note", "this": "note.live", "content": 1})
        while not stream.readline().startswith(b"data:"):
            pass
        done("/api/execute", fee, {"Prefer": "wait=30"})
        answer = done("/api/chat", {"prompt": "chat@v1", "question": "What is measured?"})
        if "event: done" not in answer:
            raise SystemExit(f"/api/chat: {answer}")
        on = {"X-LogLine-Memory": "on"}
        done("/api/memory/consent", {"decision": "grant"}, on)
        done("/api/memory", {"text": "likes numbers"}, on)
        done("/api/memory/search?q=numbers", None, on)
    for _ in range(3):
        if call("/api/identity", bearer="ll_acme_00_00")[0] != 401:
            raise SystemExit("a wrong token is not refused")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        if not any(pool.map(is_limited, [url] * 16, [token] * 16)):
            raise SystemExit("calls without end are not limited")

    wanted, until = named(), time.monotonic() + 60
    while True:
        with urllib.request.urlopen(url + "/metrics", timeout=60) as answer:
            scrape = answer.read().decode()
        values = {}
        for line in scrape.splitlines():
            if line and not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                name = series.split("{")[0]
                values[name] = max(values.get(name, 0.0), float(value))
        missing = sorted(name for name in wanted if name not in values and name not in ELSEWHERE)
        idle = sorted(name for name in COUNTED if not values.get(name))
        # The scheduler and the policies come when they come.
        if not missing and not idle:
            break
        if time.monotonic() > until:
            raise SystemExit(f"not in /metrics: {missing}; counted nothing: {idle}")
        time.sleep(0.5)
    unneeded = sorted(name for name in ELSEWHERE if name in values or name not in wanted)
    if unneeded:
        raise SystemExit(f"this server has them, or nobody names them: {unneeded}")
    print(f"{len(wanted) - len(ELSEWHERE)} metrics of dashboard and alerts are in the scrape; elsewhere: {', '.join(ELSEWHERE)}")


main(*sys.argv[1:])
