//! Owns the list of every metric there is: names, labels and meanings, and nothing that counts.
//!
//! Label values are bounded. Credentials, budgets and rules' hosts come from documents, models from the
//! price table, reasons and the like from this program. Agents and hosts have a cap besides
//! ([`super::lanes`]), and so have the groups that budgets count apart ([`super::spend_metrics`]): what
//! comes after it is counted as `other`.

use super::family::Family;
use super::vocabulary::{Item, Kind};

/// Bounds in seconds, from a refusal to a model that thinks for minutes.
const ANSWERS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// From a header that is swapped to a body that must be read whole, and a token that must be renewed.
const OWN_WORK: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
    5.0, 30.0,
];
/// From a neighbour to a limit of ten seconds each for connecting and for TLS.
const DIALS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
];

// --- exchanges

pub(super) const REQUESTS: Family = Family::counter(
    "tollgate_requests_total",
    "Exchanges and tunnels that have ended: who asked, which of the hosts that rules name, what was decided, the class of the status the agent got (`none` without one)",
)
.by(&["agent", "host", "decision", "code"]);
pub(super) const REFUSALS: Family = Family::counter(
    "tollgate_refusals_total",
    "Requests refused here, by reason as in the access log; `canary` is a placeholder where it does not belong",
)
.by(&["agent", "reason"]);
pub(super) const LIMITS: Family = Family::counter(
    "tollgate_limits_reached_total",
    "Connections and requests that were refused, closed or left aside at a limit, by its name below `spec.limits`",
)
.by(&["limit"]);
pub(super) const REQUEST_SECONDS: Family = Family::seconds(
    "tollgate_request_seconds",
    "Time from a request's head to its answer's last byte",
    ANSWERS,
);
pub(super) const UPSTREAM_SECONDS: Family = Family::seconds(
    "tollgate_upstream_seconds",
    "Time from a request's head until the origin's response head",
    ANSWERS,
);
pub(super) const ADDED_LATENCY: Family = Family::seconds(
    "tollgate_added_latency_seconds",
    "What the proxy adds before an answer begins: policy, credentials, budgets, renewals, bodies that are read whole; without the time the origin takes",
    OWN_WORK,
);
pub(super) const IN_FLIGHT: Family = Family::gauge(
    "tollgate_requests_in_flight",
    "Exchanges and tunnels that have begun and not ended",
);
pub(super) const REQUEST_BYTES: Family = Family::counter(
    "tollgate_request_body_bytes_total",
    "Body bytes from agents, bytes of tunnels included",
)
.in_unit("By");
pub(super) const RESPONSE_BYTES: Family = Family::counter(
    "tollgate_response_body_bytes_total",
    "Body bytes to agents, bytes of tunnels included",
)
.in_unit("By");
pub(super) const SCRUBBED: Family = Family::counter(
    "tollgate_scrubbed_total",
    "Places in answers where a credential's value stood and a placeholder took its place",
);
pub(super) const TUNNELS: Family = Family::counter(
    "tollgate_tunnels_total",
    "Connections whose bytes were passed on unread",
);
pub(super) const CONNECTIONS: Family = Family::gauge(
    "tollgate_open_connections",
    "Connections of agents that are open: `agent` at the door, `intercepted` and `tunnel` within it",
)
.by(&["kind"]);

// --- origins

pub(super) const UPSTREAM_OPEN: Family = Family::gauge(
    "tollgate_upstream_open_connections",
    "Pooled connections to origins that are open, idle ones included",
);
pub(super) const UPSTREAM_CONNECT_SECONDS: Family = Family::seconds(
    "tollgate_upstream_connect_seconds",
    "Time to open a pooled connection to an origin: name, TCP and TLS; its count against requests tells how often one is used again",
    DIALS,
);
pub(super) const UPSTREAM_FAILURES: Family = Family::counter(
    "tollgate_upstream_failures_total",
    "Requests that got no answer from their origin, by the stage that failed: `dns`, `connect`, `tls`, `response_timeout`, `origin_error`",
)
.by(&["host", "stage"]);

// --- TLS

pub(super) const HANDSHAKE_FAILURES: Family = Family::counter(
    "tollgate_tls_handshake_failures_total",
    "TLS handshakes that failed, with agents (`agent`; causes as in the access log) and with origins (`origin`)",
)
.by(&["side", "cause"]);
pub(super) const LEAF_CACHE: Family = Family::counter(
    "tollgate_leaf_cache_total",
    "Certificates for agents: found ready (`hit`) or signed (`minted`)",
)
.by(&["result"]);
pub(super) const CA_EXPIRY: Family = Family::gauge(
    "tollgate_ca_expiry_seconds",
    "Time until the certificate authority ends; negative once it has",
)
.in_unit("s");

pub(super) const CA_LIFETIME: Family = Family::gauge(
    "tollgate_ca_lifetime_seconds",
    "Time that the certificate authority was made for, from its beginning to its end",
)
.in_unit("s");

// --- credentials

pub(super) const INJECTIONS: Family = Family::counter(
    "tollgate_injections_total",
    "Requests that a credential was put into",
)
.by(&["credential"]);
pub(super) const REPLAYS: Family = Family::counter(
    "tollgate_replays_total",
    "Requests whose credential an origin refused, by what came of a second try: `accepted`, `rejected`, `failed`, `not_renewed`, `not_kept`",
)
.by(&["credential", "result"]);
pub(super) const TOKEN_CALLS: Family = Family::counter(
    "tollgate_token_calls_total",
    "Agents' own calls to token endpoints, by what became of them, as in the access log's `token_call`",
)
.by(&["credential", "kind"]);
pub(super) const CREDENTIAL_OK: Family = Family::gauge(
    "tollgate_credential_ok",
    "1 while a credential has a usable value",
)
.by(&["credential"]);
pub(super) const CREDENTIAL_FAILING: Family = Family::gauge(
    "tollgate_credential_source_failing",
    "1 while a credential's source fails; its last good value may still be in use",
)
.by(&["credential"]);
pub(super) const CREDENTIAL_STATE: Family = Family::gauge(
    "tollgate_credential_state",
    "1 for the state a credential is in, 0 for every other: `ok`, `expiring`, `missing`, `failing`, `expired`, `needs_login`",
)
.by(&["credential", "state"]);
pub(super) const CREDENTIAL_EXPIRY: Family = Family::gauge(
    "tollgate_credential_expiry_seconds",
    "Time until the value held ends; negative once it has, absent where that is not known",
)
.in_unit("s")
.by(&["credential"]);
pub(super) const CREDENTIAL_EXPIRY_AT: Family = Family::gauge(
    "tollgate_credential_expiry_timestamp_seconds",
    "When the value held ends, in Unix time; absent where that is not known",
)
.in_unit("s")
.by(&["credential"]);
pub(super) const CREDENTIAL_REFRESHED_AT: Family = Family::gauge(
    "tollgate_credential_last_refresh_timestamp_seconds",
    "When a credential's source last gave its value, in Unix time",
)
.in_unit("s")
.by(&["credential"]);
pub(super) const REFRESHES: Family = Family::counter(
    "tollgate_credential_refreshes_total",
    "Renewals of OAuth tokens: `ok`, `adopted` where another process was quicker, `failed`, `needs_login`",
)
.by(&["credential", "result"]);
pub(super) const CREDENTIAL_ERRORS: Family = Family::counter(
    "tollgate_credential_errors_total",
    "What went wrong with a credential: an origin answered 401 (`rejected`), a request was refused for want of it (`unavailable`), its source gave nothing (`source_failed`)",
)
.by(&["credential", "kind"]);

// --- money

pub(super) const TOKENS: Family = Family::counter(
    "tollgate_tokens_total",
    "Tokens of calls that a budget counts, by class; models without a price are `other`",
)
.by(&["agent", "model", "type"]);
pub(super) const SPEND: Family = Family::counter(
    "tollgate_spend_usd_total",
    "What calls that a budget counts cost; for show, the ledger is exact",
)
.in_unit("USD")
.by(&["agent", "model"]);
pub(super) const BUDGET_REMAINING: Family = Family::gauge(
    "tollgate_budget_remaining_ratio",
    "The part of a budget that is left in its present window, what is reserved counted as spent; of several limits, the least",
)
.in_unit("1")
.by(&["budget", "scope"]);
pub(super) const BUDGET_FORECAST: Family = Family::gauge(
    "tollgate_budget_forecast_ratio",
    "The part of a budget that will be spent when its window ends, if it goes on as since the window began; of several limits, the most. Absent at a window's beginning and for windows without an end",
)
.in_unit("1")
.by(&["budget", "scope"]);
pub(super) const BUDGET_ALERTS: Family = Family::counter(
    "tollgate_budget_alerts_total",
    "Thresholds that budgets have reached, each once in a window",
)
.by(&["budget", "percent"]);
pub(super) const UNDERRESERVED: Family = Family::counter(
    "tollgate_budget_underreserved_total",
    "Limits that gave more than was reserved for a call",
);
pub(super) const LEDGER_OK: Family = Family::gauge(
    "tollgate_ledger_ok",
    "1 while the spending ledger can be written, 0 while it cannot; absent before the first budget",
);

// --- the process

pub(super) const RELOADS: Family = Family::counter(
    "tollgate_policy_reloads_total",
    "Reloads of documents: taken over (`ok`) or refused (`error`), the old ones staying in force",
)
.by(&["result"]);
pub(super) const LAST_RELOAD_OK: Family = Family::gauge(
    "tollgate_policy_last_reload_successful",
    "1 while the documents in force are the latest; 0 while newer ones are refused",
);
pub(super) const POLICY_SINCE: Family = Family::gauge(
    "tollgate_policy_last_reload_success_timestamp_seconds",
    "Since when the documents in force are in force, in Unix time",
)
.in_unit("s");
pub(super) const PROTECTED: Family = Family::gauge(
    "tollgate_protection",
    "1 for what the process has given up before it serves, as `tollgate check` lists it; 0 for what it could not",
)
.by(&["protection"]);
pub(super) const READY: Family = Family::gauge(
    "tollgate_ready",
    "1 while the process is ready, as /readyz says",
);
pub(super) const DROPPED: Family = Family::counter(
    "tollgate_telemetry_dropped_total",
    "Records that a sink lost, by why: `queue_full` where it did not keep up, `write_failed` where its disk is full or fails, `unreachable`, `refused` and `shutdown` of spans",
)
.by(&["sink", "reason"]);
pub(super) const AUDIT_OK: Family = Family::gauge(
    "tollgate_audit_ok",
    "0 while the audit log cannot be written; 1 also where none is kept",
);
pub(super) const AUDIT_RECORDS: Family =
    Family::counter("tollgate_audit_records_total", "Audit records written");
pub(super) const AUDIT_SEQ: Family = Family::gauge(
    "tollgate_audit_seq",
    "The number of the last audit record; it falls where somebody cuts the log",
);
pub(super) const SPANS_SENT: Family = Family::counter(
    "tollgate_spans_sent_total",
    "Spans that a collector has taken",
);
pub(super) const REDACTIONS: Family = Family::counter(
    "tollgate_redactions_total",
    "Texts that the last gate before a sink found a secret in; not 0 means a fault of the program, please report it",
)
.by(&["sink"]);
pub(super) const BUILD: Family =
    Family::gauge("tollgate_build_info", "1, with the version that runs").by(&["version"]);

/// Every metric that is registered here, in the order of the reference page.
pub const ALL: &[Family] = &[
    REQUESTS,
    REFUSALS,
    LIMITS,
    REQUEST_SECONDS,
    UPSTREAM_SECONDS,
    ADDED_LATENCY,
    IN_FLIGHT,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    SCRUBBED,
    TUNNELS,
    CONNECTIONS,
    UPSTREAM_OPEN,
    UPSTREAM_CONNECT_SECONDS,
    UPSTREAM_FAILURES,
    HANDSHAKE_FAILURES,
    LEAF_CACHE,
    CA_EXPIRY,
    CA_LIFETIME,
    INJECTIONS,
    REPLAYS,
    TOKEN_CALLS,
    CREDENTIAL_OK,
    CREDENTIAL_FAILING,
    CREDENTIAL_STATE,
    CREDENTIAL_EXPIRY,
    CREDENTIAL_EXPIRY_AT,
    CREDENTIAL_REFRESHED_AT,
    REFRESHES,
    CREDENTIAL_ERRORS,
    TOKENS,
    SPEND,
    BUDGET_REMAINING,
    BUDGET_FORECAST,
    BUDGET_ALERTS,
    UNDERRESERVED,
    LEDGER_OK,
    RELOADS,
    LAST_RELOAD_OK,
    POLICY_SINCE,
    PROTECTED,
    READY,
    DROPPED,
    AUDIT_OK,
    AUDIT_RECORDS,
    AUDIT_SEQ,
    SPANS_SENT,
    REDACTIONS,
    BUILD,
];

/// What the metrics library tells of the process, under the names that all Prometheus clients use
/// (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).
pub const PROCESS: &[Item] = &[
    Item::new(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time used, of user and system",
    )
    .in_unit("s"),
    Item::new("process_open_fds", Kind::Gauge, "Open file descriptors"),
    Item::new(
        "process_max_fds",
        Kind::Gauge,
        "File descriptors that may be open",
    ),
    Item::new(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Virtual memory",
    )
    .in_unit("By"),
    Item::new(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory",
    )
    .in_unit("By"),
    Item::new(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the process began, in Unix time",
    )
    .in_unit("s"),
    Item::new("process_threads", Kind::Gauge, "Threads"),
];
