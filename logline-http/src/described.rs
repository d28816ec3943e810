//! What each metric means, as exporters print it. The texts are those of `docs/metrics.md`.

/// Kind, name and meaning.
const METRICS: [(Kind, &str, &str); 41] = [
    (Kind::Histogram, "logline_append_spans", "spans in one append that was stored"),
    (Kind::Histogram, "logline_ledger_seconds", "time of a call of the ledger: append, get, history, scan, take, heartbeat"),
    (Kind::Counter, "logline_ledger_errors_total", "calls that failed because of the ledger, not of what was asked"),
    (Kind::Histogram, "logline_tail_lag_seconds", "from the time in a row (at) until it comes through a tail of this process"),
    (Kind::Gauge, "logline_queue_requests", "open requests: due, leased, later, parked; at most 10,000 are counted"),
    (Kind::Gauge, "logline_queue_oldest_seconds", "how long the request that waits longest has been due"),
    (Kind::Counter, "logline_claims_total", "attempts that this worker has begun"),
    (Kind::Counter, "logline_claim_conflicts_total", "claims in which another worker was faster"),
    (Kind::Gauge, "logline_attempts_running", "attempts that run in this process"),
    (Kind::Counter, "logline_attempts_total", "attempts that have ended, by what became of them"),
    (Kind::Histogram, "logline_attempt_seconds", "from the claim of an attempt to its end"),
    (Kind::Counter, "logline_requests_parked_total", "requests that could neither be claimed nor closed"),
    (
        Kind::Counter,
        "logline_calls_closed_total",
        "calls to the outside that no attempt would have closed, and that were closed as unknown",
    ),
    (Kind::Counter, "logline_quota_denied_total", "requests that were put off because a quota is used up"),
    (Kind::Counter, "logline_shared_keys_total", "loops that found another process with this host's key"),
    (Kind::Histogram, "logline_sandbox_seconds", "time of one run in the sandbox, ok or error"),
    (Kind::Counter, "logline_sandbox_fuel_total", "fuel that guests have used"),
    (Kind::Histogram, "logline_compile_seconds", "time to check and compile a module before it is published"),
    (Kind::Counter, "logline_slots_total", "slots of schedules that became requests"),
    (Kind::Counter, "logline_policy_spans_total", "spans that policies were asked about"),
    (Kind::Counter, "logline_policy_effects_total", "spans that policies have written"),
    (Kind::Histogram, "gen_ai.client.inference.duration", "seconds of one call with all its tries"),
    (Kind::Histogram, "gen_ai.client.embeddings.duration", "seconds of one call for vectors with all its tries"),
    (
        Kind::Histogram,
        "gen_ai.client.inference.time_to_first_chunk",
        "seconds to the first piece of an answer that was streamed",
    ),
    (Kind::Counter, "gen_ai.client.inference.usage.tokens", "tokens that a provider has counted"),
    (Kind::Histogram, "gen_ai.execute_tool.duration", "seconds from the use of a tool by a model to its result"),
    (Kind::Counter, "logline_memory_upserts_total", "memories that were written"),
    (Kind::Counter, "logline_memory_searches_total", "searches"),
    (Kind::Counter, "logline_memory_forgotten_keys_total", "keys of texts that were destroyed"),
    (Kind::Counter, "logline_memory_orphaned_keys_total", "keys without a text that were deleted"),
    (
        Kind::Counter,
        "logline_memory_unreadable_total",
        "memories without a key that nobody has forgotten: restore the store of keys",
    ),
    (
        Kind::Counter,
        "logline_memory_searches_without_vectors_total",
        "searches that found by words alone, because the embedder failed",
    ),
    (Kind::Counter, "logline_log_leaves_total", "spans that were entered into transparency logs"),
    (Kind::Counter, "logline_log_failures_total", "steps of a log that failed"),
    (Kind::Counter, "logline_witness_calls_total", "calls that a witness has answered"),
    (Kind::Counter, "logline_http_requests_total", "calls answered"),
    (Kind::Histogram, "logline_http_request_seconds", "from the head of a call to the head of its answer"),
    (Kind::Gauge, "logline_http_streams", "open streams and waits"),
    (Kind::Gauge, "logline_http_tails", "tails of the ledger, one for each tenant with streams"),
    (
        Kind::Counter,
        "logline_http_rate_limited_total",
        "calls refused by a rate, connections by a share: key, tenant, refused, connections",
    ),
    (Kind::Counter, "logline_http_tokens_refused_total", "tokens refused"),
];

/// Counters without labels that begin at zero.
const AT_ZERO: [&str; 14] = [
    "logline_claims_total",
    "logline_claim_conflicts_total",
    "logline_requests_parked_total",
    "logline_quota_denied_total",
    "logline_shared_keys_total",
    "logline_slots_total",
    "logline_policy_spans_total",
    "logline_policy_effects_total",
    "logline_memory_searches_total",
    "logline_memory_forgotten_keys_total",
    "logline_memory_orphaned_keys_total",
    "logline_memory_unreadable_total",
    "logline_memory_searches_without_vectors_total",
    "logline_http_tokens_refused_total",
];

/// Those with a label, and its values.
const LABELLED_AT_ZERO: [(&str, &str, &[&str]); 3] = [
    ("logline_ledger_errors_total", "operation", &["append", "get", "history", "scan", "take", "heartbeat"]),
    ("logline_memory_upserts_total", "layer", &["session", "temporary", "permanent", "shared", "local"]),
    ("logline_http_rate_limited_total", "limit", &["key", "tenant", "refused"]),
];

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Gives the exporter of this process the meaning of every metric of LogLine, as `docs/metrics.md` has it, and lets counters of what seldom
/// happens begin at zero: an alert on an increase does not see the first fault of a series that begins with it. Call it after the exporter
/// was installed.
pub fn describe_metrics() {
    for (kind, name, text) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, text),
            Kind::Gauge => metrics::describe_gauge!(name, text),
            Kind::Histogram => metrics::describe_histogram!(name, text),
        }
    }
    for name in AT_ZERO {
        metrics::counter!(name).absolute(0);
    }
    for (name, label, values) in LABELLED_AT_ZERO {
        for value in values {
            metrics::counter!(name, label => *value).absolute(0);
        }
    }
}
