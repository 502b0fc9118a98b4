//! Tollgate is an egress proxy for AI agents. The agent holds placeholders, Tollgate holds the keys.
//!
//! An agent (Claude Code, Codex, a script with an SDK) sends its requests through this proxy. A policy
//! says which hosts, methods and paths it may use. Where a request carries a placeholder that belongs
//! there, the real secret takes its place on the way out, inside verified TLS, and only then.
//!
//! What it does not do: it does not decide what a provider lets a key do, it does not keep data from
//! leaving through a host that is allowed, and it does not stop an agent from going around it. A
//! network policy does the last; budgets and narrow path rules help with the others.
//!
//! # The life of a request
//!
//! Each stage is a file of that name.
//!
//! ```text
//! listen/accept       take a connection
//! listen/forward      CONNECT · absolute-form · base URL, told apart by the request-target
//!   identity          Proxy-Authorization, or the one agent there is   -> Agent
//!   listen/connect    host and port against policy, before DNS         -> refuse · tunnel · intercept
//!     proxy/tunnel      server name = target, then bytes unread, both ways
//!     proxy/intercept   TLS ended with a leaf for exactly this host, h1 or h2 inside
//!       proxy/exchange    one request, top to bottom:
//!         net/framing       the bytes have one reading (net/gate)      -> or 400
//!         proxy/headers     URI, Host and connection name one origin   -> or 421
//!         policy/engine     EgressIntent                               -> Permit | Denial
//!         proxy/token_call  an agent's own call to the token endpoint of an owned grant is
//!                           answered with placeholders; a login is taken over
//!         proxy/spend       where a budget counts it: what it may cost is reserved      -> or 402, 429
//!         proxy/replay      once, and again where a renewed token may help:
//!           proxy/attempt
//!             inject/set        Permit + head: placeholders become secrets -> or 403, 503
//!             proxy/upload      the body streams on, or proxy/whole reads it for a swap
//!             proxy/spool       and is kept while it may have to be sent again
//!             proxy/upstream    Permit + request: resolve, guard, dial,
//!                               verify, send                           -> response
//!         proxy/scrubbing   the secrets that went out are looked for in the head -> or 502
//!         proxy/upgrade     101: WebSocket frames, both ways, while its lease holds
//!         proxy/body        frames leave as they come
//!           proxy/origin_body  searched where there was a secret: scrub/decoder, scrub/stream
//!           proxy/metered     read beside their way, held to the reservation, settled before the last one
//!       proxy/account     one record and one count, on every way out
//!         telemetry/sinks   to the logs, to whoever watches, and to telemetry/traces if its span is to be recorded
//! ```
//!
//! A refusal is made in one place, [`proxy::refusal`], in the error shape that the agent's own library
//! reads; [`proxy::error`] lists every reason there is.
//!
//! # The life of a grant
//!
//! A credential whose source is `oauth` is a held value like any other to the data path. Behind it:
//!
//! ```text
//! app/grants          settings, store, way to the endpoint and owner of one credential
//! oauth/manager       owns it: renews ahead of time, once for all who ask, follows what others store
//!   oauth/redeem        one renewal: lock, read again, intent stored, asked, tokens stored, then used
//!     oauth/store         a file (store_file), a Kubernetes Secret (store_kubernetes), or memory
//!     oauth/asking        grant -> request -> app/token_transport -> answer -> TokenSet
//!   oauth/holding       what requests may use of it now, or why nothing    -> credential/held
//! oauth/login, device how a person begins it from the command line; oauth/import takes one over
//! ```
//!
//! # The life of a dollar
//!
//! ```text
//! meter/endpoint    free, metered or unmetered, by path
//! meter/scan        the body: model, longest answer, caches, tools             -> Call
//! meter/bound       Call + price: the most it can cost, or a first tranche     -> Need
//! budget/set        agent, host, model                                         -> the limits that cover it
//! budget/ledger     reserved from every limit or from none, in one step        -> or exhausted, contended
//!   budget/desk       the books, changed in the task that calls, and in budget/journal before it goes on
//!   budget/sqlite_*   the thread that writes the journal to tables, reads history, waits for the disk
//!   meter/reader      the answer, decoded beside its way: usage as it is told
//!   proxy/tranche     more is reserved while a stream runs; none left: proxy/cut
//! meter/charge      what was read, at the price of the model that answered     -> Charges
//! budget/ledger     settled, whatever the limit; then the answer's last piece goes on
//! ```
//!
//! # The life of a span
//!
//! ```text
//! telemetry/trace_context   what the agent's traceparent says, if it is well-formed
//! telemetry/sampler         whether it is recorded, decided once
//! proxy/headers             an origin goes on from it, where its rule says so
//! telemetry/span_notes      what is noted beside the record while the exchange runs
//! telemetry/traces          handed over at the end, or dropped and counted
//!   telemetry/span            on a thread of its own: record and notes, as protobuf
//!   telemetry/gate            no text in it holds a known secret
//!   telemetry/otlp            batches, sent again while there is time   -> app/collector
//! ```
//!
//! # Floors
//!
//! A file imports only from lower floors or from its own folder, folders on one floor do not know each
//! other, and no two files import each other. `tests/it/architecture.rs` checks it.
//!
//! ```text
//! cli                                    commands
//! app                                    composition: the only floor that knows every concrete type
//! listen · admin                         the doors of agents and of operators
//! proxy                                  the data path
//! inject                                 what is put into a request
//! oauth                                  tokens that must be renewed
//! credential · identity · tls · cluster
//!   · budget · meter · scrub             one concern each, blind to each other
//! telemetry                              what leaves as log, metric and span
//! policy                                 the decision, pure
//! config                                 what the user wrote
//! net · rt                               sockets; shutdown, readiness and files
//! types                                  vocabulary
//! ```
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | agent | the program whose traffic is carried |
//! | origin | the real server (RFC 9110) |
//! | door, `Ingress` | how a request came: `Connect`, `AbsoluteForm`, `BaseUrl` |
//! | `EgressIntent` | who asks for what; the only input of the policy |
//! | `Permit` | proof that policy allowed it; only `policy` can make one, and nothing is sent without |
//! | credential | a named secret, the hosts that may receive it, and where it goes |
//! | placeholder | the harmless value the agent holds instead |
//! | placement | a place in a request where a placeholder may stand |
//! | foreign credential | one that is not a placeholder, on a host that has a credential |
//! | audit log | a chain of records of what matters to security; a head is its signed end |
//! | canary | a placeholder where it does not belong: refused, counted, logged |
//! | intercept, tunnel | end TLS and read; pass the bytes unread |
//! | leaf, authority, bundle | a minted certificate; our CA; the PEM file agents trust |
//! | snapshot | everything compiled from the documents of one moment |
//! | grant, login | what a person or a key gave a client to ask for tokens with; a login is a person's |
//! | owner | whoever renews a grant: nobody else holds its refresh token |
//! | intent | the note that a renewal has begun, stored before the endpoint is asked |
//! | store | where a grant outlives the process |
//! | limit, window | how much of a unit may be spent, in which stretch of time |
//! | call | a request to a model, as far as it says what it may cost |
//! | hold, reservation | what a call may still take, until it is settled |
//! | tranche | the part of a stream's answer that is reserved so far |
//! | scrub | replace a secret in an answer by the placeholder |
//! | needle | one form of a secret that is looked for |
//! | exhausted, contended | will not fit before the window ends; fits once others settle |
//!
//! # Rules the types keep
//!
//! * [`types::secret::Secret`] has no `Display`, no `Serialize` and no `Deref`; its `Debug` shows nothing.
//! * [`policy::decision::Permit`] has private fields; [`proxy::upstream::Upstream::send`] wants one.
//! * [`telemetry::redact::SafeTarget`] is the only form in which a path reaches a log.
//! * [`proxy::admission::Admission`] is made by [`proxy::spend`] alone; [`proxy::attempt::Attempt::send`] wants one, and what
//!   is in the books is settled when it is dropped.
//! * [`proxy::account::Accounting`] settles when it is dropped, so that no way out goes unrecorded.

pub mod admin;
pub mod app;
pub mod budget;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod credential;
pub mod identity;
pub mod inject;
pub mod listen;
pub mod meter;
pub mod net;
pub mod oauth;
pub mod policy;
pub mod proxy;
pub mod rt;
pub mod scrub;
pub mod telemetry;
pub mod tls;
pub mod types;
