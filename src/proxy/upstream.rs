//! Owns the pooled connections to origins. Nothing is sent without a [`Permit`]; connections are
//! shared only among requests that reach and verify origins the same way.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::connector::{Connector, DialFailure};
use super::dial::{DialError, Dialer};
use super::error::{OriginFault, ProxyError, cause};
use super::headers::has_two_readings;
use super::lanes::{Lane, Lanes, Stated};
use super::under_way::{Counted, UnderWay};
use super::upload::RequestBody;
use super::uploaded::Uploaded;
use crate::policy::decision::{DialProfile, Permit};
use crate::telemetry::metrics::Metrics;
use crate::tls::upstream::{Alpn, OriginTrust};
use crate::tls::verdict::Verdict;
use crate::types::host::Authority;
use crate::types::limits::{NO_CLOCK, OriginLimits};

/// Which protocols a request can live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// Whatever the origin prefers.
    Any,
    /// HTTP/1.1 only: upgrades do not exist in HTTP/2.
    Http1,
}

/// Sends requests to origins.
pub struct Upstream {
    dialer: Dialer,
    trust: OriginTrust,
    metrics: Metrics,
    limits: OriginLimits,
    under_way: UnderWay,
    pools: ArcSwap<Vec<Pool>>,
    opening: Mutex<()>,
}

/// The connections for whoever reaches origins by one profile.
#[derive(Clone)]
struct Pool {
    profile: Arc<DialProfile>,
    ways: Arc<Ways>,
}

/// The connections of one way to reach origins.
struct Ways {
    any: Lanes<OriginClient>,
    http1: ArcSwap<Lane<OriginClient>>,
    connectors: Connectors,
}

/// What opens them, for either choice of protocols.
#[derive(Clone)]
struct Connectors {
    any: Connector,
    http1: Connector,
}

type OriginClient = Client<Connector, RequestBody>;

/// More fields than that cost the library room on the heap at each parse.
const FREE_FIELDS: usize = 100;
/// Of an answer over HTTP/2 that its agent does not take.
const MOST_UNTAKEN: u32 = 512 * 1024;
/// The largest window there is (RFC 9113, section 6.9.1).
const MOST_WINDOW: u32 = (1 << 31) - 1;
/// Ways to reach origins that are kept open; a reload brings new ones, and the oldest go.
const MOST_POOLS: usize = 64;

impl Upstream {
    /// Dials with `dialer`, believes `trust`, counts connections in `metrics`, keeps as many as `limits` say.
    pub fn new(dialer: Dialer, trust: OriginTrust, metrics: Metrics, limits: OriginLimits) -> Self {
        Self {
            dialer,
            trust,
            metrics,
            limits,
            under_way: UnderWay::new(limits.idle),
            pools: ArcSwap::default(),
            opening: Mutex::new(()),
        }
    }

    /// The dialer, for tunnels.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends a request whose URI is absolute and returns the response head; its body follows. It is under way
    /// until what counts it is dropped.
    ///
    /// What an origin says that it did not process goes out once more, if all of it is here, and has that time again.
    ///
    /// Errors: the origin cannot be reached, or sends no head within the permit's limit, which begins when the
    /// last of the body has gone on, as `uploaded` tells.
    pub async fn send(
        &self,
        permit: &Permit,
        protocols: Protocols,
        mut request: Request<RequestBody>,
        uploaded: Option<&Uploaded>,
    ) -> Result<(Response<Incoming>, Counted), ProxyError> {
        if self.under_way.too_many_idle() {
            self.let_go();
        }
        let ways = self.ways(permit)?;
        let (lane, counted) = match protocols {
            Protocols::Any => ways.any.enter(permit.authority()),
            Protocols::Http1 => {
                let lane = ways.http1.load_full();
                let counted = lane.join();
                (lane, counted)
            }
        };
        // The pool chooses by ALPN; a version set here would only forbid the other.
        *request.version_mut() = Version::HTTP_11;
        let authority = permit.authority();
        let limit = permit.dial().timeouts.response_headers;
        let again = match protocols {
            Protocols::Any if ways.any.shares(authority) => again(&request),
            _ => None,
        };
        let sent = in_time(lane.client.request(request), limit, uploaded).await;
        let sent = match (sent, again) {
            (Some(Err(error)), Some(again)) if is_unprocessed(&error) => {
                tracing::debug!(%authority, error = %chain(&error), "sent again");
                // Hardly ever: every request would keep room for it.
                Box::pin(in_time(lane.client.request(*again), limit, uploaded)).await
            }
            (sent, _) => sent,
        };
        match sent {
            Some(Ok(response)) if has_two_readings(response.headers()) => {
                self.forget(&ways, protocols, authority);
                Err(ProxyError::Origin {
                    authority: authority.clone(),
                    fault: OriginFault::Head,
                })
            }
            Some(Ok(response)) if self.is_large(&response) => Err(ProxyError::Origin {
                authority: authority.clone(),
                fault: OriginFault::LargeHead(self.limits),
            }),
            Some(Ok(response)) => Ok((response, counted)),
            Some(Err(error)) => Err(explain(&error, authority, &self.limits)),
            None => Err(ProxyError::Silent {
                authority: authority.clone(),
            }),
        }
    }

    /// Over HTTP/1.1 the library looks at what it has read so far. Over HTTP/2 it counts no fields, and of a head that is
    /// too large it says nothing else than of one that is none: only one of twice the size is left to it.
    fn is_large(&self, response: &Response<Incoming>) -> bool {
        let headers = response.headers();
        headers.len() > self.limits.head_fields || size_of(headers) > self.limits.head_size
    }

    fn ways(&self, permit: &Permit) -> Result<Arc<Ways>, ProxyError> {
        let profile = permit.dial();
        let find = |pools: &[Pool]| {
            let mut same = pools.iter().filter(|p| Arc::ptr_eq(&p.profile, profile));
            same.next().map(|pool| pool.ways.clone())
        };
        if let Some(ways) = find(&self.pools.load()) {
            return Ok(ways);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = self.pools.load_full();
        if let Some(ways) = find(&pools) {
            return Ok(ways);
        }
        // A reload makes new profiles that often say the same: their connections stay of use.
        let ways = match pools.iter().find(|p| *p.profile == **profile) {
            Some(same) => same.ways.clone(),
            None => Arc::new(self.open(permit)?),
        };
        let pool = Pool {
            profile: profile.clone(),
            ways: ways.clone(),
        };
        let next = with_newest(&pools, pool, MOST_POOLS);
        self.pools.store(Arc::new(next));
        Ok(ways)
    }

    /// Uses no connection again that may be open to this origin in this way: one of them is in doubt, and which one
    /// the library does not tell. Whoever reaches other origins keeps theirs.
    fn forget(&self, ways: &Ways, protocols: Protocols, authority: &Authority) {
        match protocols {
            Protocols::Any => ways.any.forget(authority),
            // It is for upgrades alone, whose connections wait for nobody.
            Protocols::Http1 => ways.http1.store(self.http1_lane(&ways.connectors)),
        }
    }

    /// Closes what is idle, on all ways: which of them has been so longest the library does not tell. What is in
    /// use is closed at its end.
    fn let_go(&self) {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.pools.load_full();
        let mut next: Vec<Pool> = Vec::with_capacity(old.len());
        for (index, pool) in old.iter().enumerate() {
            let shared = old[..index]
                .iter()
                .position(|other| Arc::ptr_eq(&other.ways, &pool.ways));
            let ways = match shared {
                Some(before) => next[before].ways.clone(),
                None => Arc::new(self.connect_by(pool.ways.connectors.clone())),
            };
            let profile = pool.profile.clone();
            next.push(Pool { profile, ways });
        }
        self.pools.store(Arc::new(next));
    }

    fn open(&self, permit: &Permit) -> Result<Ways, ProxyError> {
        let profile = permit.dial();
        let config = |alpn| {
            self.trust
                .client_config(&profile.upstream, alpn)
                .map_err(|error| DialError::Settings {
                    authority: permit.authority().clone(),
                    cause: error.to_string(),
                })
        };
        // What an origin takes over HTTP/1.1 alone says nothing of what it takes over HTTP/2.
        let connector = |tls| Connector {
            dialer: self.dialer.clone(),
            profile: profile.clone(),
            tls,
            metrics: self.metrics.clone(),
            under_way: self.under_way.clone(),
            stated: Stated::new(),
            ping: self.limits.ping,
        };
        Ok(self.connect_by(Connectors {
            any: connector(config(Alpn::H2AndHttp1)?),
            http1: connector(config(Alpn::Http1)?),
        }))
    }

    fn connect_by(&self, connectors: Connectors) -> Ways {
        let limits = self.limits;
        let any = connectors.any.clone();
        let stated = any.stated.clone();
        let make = move || client(any.clone(), &limits);
        Ways {
            any: Lanes::new(stated, self.under_way.clone(), make),
            http1: ArcSwap::from(self.http1_lane(&connectors)),
            connectors,
        }
    }

    fn http1_lane(&self, connectors: &Connectors) -> Arc<Lane<OriginClient>> {
        let http1 = client(connectors.http1.clone(), &self.limits);
        Arc::new(Lane::new(http1, &self.under_way))
    }
}

fn again(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    let mut again = Box::new(Request::new(request.body().again()?));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
}

/// Whether the origin has said that it did nothing with the request, so that it may go out again whatever it is: by
/// a connection that goes away before it, or by refusing the stream (RFC 9113, section 8.7).
fn is_unprocessed(error: &hyper_util::client::legacy::Error) -> bool {
    cause::<h2::Error>(error).is_some_and(|error| {
        let reason = error.reason();
        error.is_remote()
            && (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)
                || error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// What an origin answers, if it does so within `limit`. The turns of its agent do not count.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    limit: Duration,
    uploaded: Option<&Uploaded>,
) -> Option<T> {
    let mut answer = pin!(answer);
    let mut deadline = Instant::now() + limit;
    loop {
        if let Ok(answer) = timeout_at(deadline, answer.as_mut()).await {
            return Some(answer);
        }
        deadline = uploaded?.deadline(limit);
        if deadline <= Instant::now() {
            return None;
        }
    }
}

/// As HTTP/2 counts it (RFC 9113, section 6.5.2).
fn size_of(headers: &HeaderMap) -> usize {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32);
    sizes.sum()
}

/// As many of `all` and `newest` as there may be: the oldest go.
fn with_newest<T: Clone>(all: &[T], newest: T, most: usize) -> Vec<T> {
    let kept = all.iter().skip((all.len() + 1).saturating_sub(most));
    kept.cloned().chain([newest]).collect()
}

fn client(connector: Connector, limits: &OriginLimits) -> OriginClient {
    let mut builder = Client::builder(TokioExecutor::new());
    if limits.head_fields != FREE_FIELDS {
        builder.http1_max_headers(limits.head_fields);
    }
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(limits.idle_per_host)
        // Of an answer that its agent does not take no more than this is read ahead.
        .http1_max_buf_size(limits.head_size)
        .http2_max_header_list_size(u32::try_from(2 * limits.head_size).unwrap_or(u32::MAX))
        // Long answers at full speed: the window holds a round trip of a fast path.
        .http2_initial_stream_window_size(MOST_UNTAKEN)
        // A connection is shared by all agents: those who take nothing of their answers must not use up a
        // window that the answers of others need as well.
        .http2_initial_connection_window_size(MOST_WINDOW)
        .http2_keep_alive_interval(limits.ping)
        // `net/calm` keeps it.
        .http2_keep_alive_timeout(NO_CLOCK)
        .build(connector)
}

/// Finds what our own connector said within the library's error.
fn explain(
    error: &hyper_util::client::legacy::Error,
    authority: &Authority,
    limits: &OriginLimits,
) -> ProxyError {
    if let Some(failed) = cause::<DialFailure>(error)
        && let Some(error) = failed.take()
    {
        return error.into();
    }
    if cause::<super::body::BodyError>(error).is_some() {
        return ProxyError::AgentBody;
    }
    // With TLS 1.3 an origin that misses a client's certificate says so after the handshake.
    if let Some(said) = cause::<rustls::Error>(error)
        && Verdict::of_tls(said) == Verdict::ClientCertificate
    {
        return ProxyError::Dial(DialError::Tls {
            authority: authority.clone(),
            cause: Verdict::ClientCertificate,
        });
    }
    tracing::debug!(%authority, error = %chain(error), "the origin failed");
    let fault = match cause::<hyper::Error>(error).is_some_and(hyper::Error::is_parse_too_large) {
        true => OriginFault::LargeHead(*limits),
        false => OriginFault::Head,
    };
    ProxyError::Origin {
        authority: authority.clone(),
        fault,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ways_go_when_there_are_too_many() {
        assert_eq!(with_newest(&[], 1, 3), [1]);
        assert_eq!(with_newest(&[1, 2], 3, 3), [1, 2, 3]);
        assert_eq!(with_newest(&[1, 2, 3], 4, 3), [2, 3, 4]);
    }
}
