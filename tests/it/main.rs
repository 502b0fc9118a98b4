//! The real binary in front of strict local origins, with real clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::large_futures,
    missing_docs,
    unreachable_pub
)]

#[macro_use]
mod support;

mod agreement;
mod alerts;
mod answers_framing;
mod architecture;
mod audit;
mod bad_certificates;
mod bad_credentials;
mod bad_disk;
mod bad_dns;
mod bad_files;
mod bad_helpers;
mod bad_input;
mod bad_origin;
mod bad_settings;
mod baseline;
mod budget_complaints;
mod budget_disk;
mod budgets_cap;
mod budgets_clients;
mod budgets_clock;
mod budgets_clouds;
mod budgets_crash;
mod budgets_cut;
mod budgets_endpoints;
mod budgets_evasion;
mod budgets_http2;
mod budgets_life;
mod budgets_lowering;
mod budgets_overlong;
mod budgets_refusals;
mod budgets_silent;
mod budgets_stalled;
mod budgets_unread;
mod budgets_usage;
mod claude_code;
mod claude_login;
mod cli;
mod clock_steps;
mod codex;
mod codex_login;
mod creds;
mod creds_login;
mod curl;
mod denied;
mod exhausted;
mod gh;
mod git;
mod grpc;
mod h2_floods;
mod h2_origin;
mod h2_parsing;
mod hardening;
mod http;
mod kube_api;
mod kube_store;
mod life;
mod limits_attack;
mod limits_connections;
mod limits_memory;
mod limits_requests;
mod meter_truth;
mod no_leak;
mod no_token_leak;
mod oauth_asking;
mod oauth_clock;
mod oauth_cluster;
mod oauth_crash;
mod oauth_disk;
mod oauth_failures;
mod oauth_outage;
mod oauth_refresh;
mod oauth_replicas;
mod oauth_shared;
mod observability;
mod origin_faults;
mod origin_streams;
mod otlp;
mod placements;
mod presets;
mod provider;
mod readme;
mod reload;
mod replay;
mod revocation;
mod run;
mod scrape;
mod scrub;
mod sdks;
mod secrets;
mod smuggling;
mod spend;
mod spend_budget;
mod storms;
mod tap;
mod telegram;
mod tls_inside;
mod token_call;
mod token_file;
mod token_grants;
mod token_server;
mod tunnels;
mod websocket;
