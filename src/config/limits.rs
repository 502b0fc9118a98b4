//! Owns `spec.limits` as written, and the numbers it becomes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::Located;
use super::units::{Pace, Size, Span};
use crate::types::limits::{Limits, Rate};

/// What agents, and origins on their behalf, may take of this process. Each has an answer of its own that names it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// Connections of agents.
    #[serde(default)]
    pub connections: ConnectionLimitsSpec,
    /// Requests as they come in.
    #[serde(default)]
    pub requests: RequestLimitsSpec,
    /// HTTP/2 requests under way.
    #[serde(default)]
    pub streams: StreamLimitsSpec,
    /// Memory for bodies of requests.
    #[serde(default)]
    pub bodies: BodyLimitsSpec,
    /// Answers that are read: for secrets, and for what they used.
    #[serde(default)]
    pub answers: AnswerLimitsSpec,
    /// Connections to origins.
    #[serde(default)]
    pub origins: OriginLimitsSpec,
    /// Certificates for agents.
    #[serde(default)]
    pub leaves: LeafLimitsSpec,
    /// Names that are looked up.
    #[serde(default)]
    pub dns: DnsLimitsSpec,
}

/// Connections of agents, tunnels and upgraded ones included.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionLimitsSpec {
    /// Open at once; 16384 when absent. Further ones get a 503.
    #[serde(default)]
    pub total: Option<Located<u32>>,
    /// Open at once of one agent; a quarter of `total` when absent, all of it where there is only one agent.
    /// Further ones get a 429.
    #[serde(default)]
    pub per_agent: Option<Located<u32>>,
    /// Open at once of one address (of IPv6, one /64), as long as they have named no agent; 1024 when absent.
    /// Further ones get a 429.
    #[serde(default)]
    pub unidentified_per_address: Option<Located<u32>>,
    /// Longest time without a request under way; 5m when absent. Then they are closed.
    #[serde(default)]
    pub idle: Option<Located<Span>>,
    /// Silence on HTTP/2 after which an agent is asked with a PING whether it is there; 60s when absent. One that does
    /// not answer in as long again, and takes nothing of what there is for it, is taken for gone and its connection closed.
    #[serde(default)]
    pub ping: Option<Located<Span>>,
    /// Longest time from the answer to CONNECT to the first byte within; 60s when absent. Then they are closed.
    #[serde(default)]
    pub tunnel_start: Option<Located<Span>>,
    /// Longest time of a TLS handshake with an agent; 10s when absent. Then they are closed.
    #[serde(default)]
    pub handshake: Option<Located<Span>>,
}

/// Requests as they come in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestLimitsSpec {
    /// Request line and headers together; 64KiB when absent. Larger ones get a 431.
    #[serde(default)]
    pub head_size: Option<Located<Size>>,
    /// Headers; 100 when absent. More get a 431.
    #[serde(default)]
    pub head_fields: Option<Located<u32>>,
    /// Longest time from the first byte of the request line to the end of the headers; 10s when absent. Slower
    /// ones get a 408. A connection that has sent nothing at all is closed after as long.
    #[serde(default)]
    pub head_time: Option<Located<Span>>,
    /// Longest silence within a body, and a tenth of the time for one that is read whole; 60s when absent. Slower
    /// ones get a 408. A body on HTTP/2 that tells no length and is passed on as it comes may be silent: its origin
    /// keeps the time.
    #[serde(default)]
    pub body_idle: Option<Located<Span>>,
}

/// HTTP/2 requests under way. Each counts like a connection, of which an HTTP/1.1 request has one to itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamLimitsSpec {
    /// On one connection; 100 when absent. Clients are told, and more are reset.
    #[serde(default)]
    pub per_connection: Option<Located<u32>>,
    /// Of one agent; a quarter of `total` when absent, all of it where there is only one agent. More get a 429.
    #[serde(default)]
    pub per_agent: Option<Located<u32>>,
    /// Of all agents; 16384 when absent. More get a 503.
    #[serde(default)]
    pub total: Option<Located<u32>>,
}

/// Memory for bodies of requests, of all requests together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyLimitsSpec {
    /// For bodies that may have to be sent again with a new token (`replayLimit` says how large one may be);
    /// 64MiB when absent. Past it requests go on without a second try.
    #[serde(default)]
    pub kept: Option<Located<Size>>,
    /// For bodies that must be read whole, since a credential goes into them or a budget counts them; 256MiB
    /// when absent. Past it requests get a 503.
    #[serde(default)]
    pub read: Option<Located<Size>>,
    /// Of `read`, for those of one agent; a quarter of it when absent, all of it where there is only one agent. Past it
    /// requests get a 429.
    #[serde(default)]
    pub read_per_agent: Option<Located<Size>>,
}

/// Answers that are read: for secrets, and for what they used.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnswerLimitsSpec {
    /// Memory for the windows of the codings `br` (up to 16MiB each) and `zstd` (up to 8MiB), of all answers
    /// together; 256MiB when absent. While there is no room for another, origins are asked for gzip, and one
    /// that answers otherwise gets the request a 503.
    #[serde(default)]
    pub windows: Option<Located<Size>>,
    /// Memory for the events and JSON bodies of answers that are read for what they used, beyond 64KiB of each, of all
    /// answers together; 128MiB when absent. One that there is no room for passes unread: its call is charged as
    /// reserved.
    #[serde(default)]
    pub read: Option<Located<Size>>,
    /// The longest WebSocket frame of an origin whose text is searched; 64MiB when absent. Longer ones end the
    /// connection with the code 1009 (RFC 6455, section 7.4.1). Frames that are not searched pass unread.
    #[serde(default)]
    pub web_socket_frame: Option<Located<Size>>,
}

/// Connections to origins: those that wait for the next request, which are closed after a minute in any case, and what
/// answers may begin with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginLimitsSpec {
    /// Open at once beyond the requests under way; 512 when absent. Past it all that wait are closed.
    #[serde(default)]
    pub idle: Option<Located<u32>>,
    /// Kept for one host over HTTP/1.1; 64 when absent. Further ones are closed after their answer.
    #[serde(default)]
    pub idle_per_host: Option<Located<u32>>,
    /// Status line and headers of an answer together; 128KiB when absent. Larger ones become a 502.
    #[serde(default)]
    pub head_size: Option<Located<Size>>,
    /// Headers of an answer; 100 when absent. More become a 502.
    #[serde(default)]
    pub head_fields: Option<Located<u32>>,
    /// Silence on HTTP/2 with requests under way after which an origin is asked with a PING whether it is there; 30s
    /// when absent. One that does not answer in as long again, and takes nothing, is taken for gone: its requests fail.
    /// One without requests under way is not asked, and closed after twice as long.
    #[serde(default)]
    pub ping: Option<Located<Span>>,
}

/// Certificates for agents, one for each intercepted host.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeafLimitsSpec {
    /// Kept ready; 4096 when absent. The least recently used go.
    #[serde(default)]
    pub cached: Option<Located<u32>>,
    /// Made for all agents; 500/s when absent. CONNECT to a further new host gets a 503.
    #[serde(default)]
    pub mints: Option<Located<Pace>>,
    /// Made for one agent; 100/s when absent. CONNECT to a further new host gets a 429.
    #[serde(default)]
    pub mints_per_agent: Option<Located<Pace>>,
}

/// Names that are looked up.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsLimitsSpec {
    /// Addresses of one answer that are used; 16 when absent. The others are left aside.
    #[serde(default)]
    pub answers: Option<Located<u32>>,
    /// Lookups under way at once; 256 when absent. Requests that need a further one get a 503.
    #[serde(default)]
    pub lookups: Option<Located<u32>>,
    /// Longest time of a lookup, its repetitions included; 3s when absent. Then requests get a 502.
    #[serde(default)]
    pub timeout: Option<Located<Span>>,
}

impl LimitsSpec {
    /// The numbers, for a process that knows so many agents by name.
    pub fn compiled(&self, agents: usize) -> Limits {
        let mut limits = Limits::default();
        let one = agents <= 1;
        let share = |total: usize| if one { total } else { (total / 4).max(1) };
        let connections = &mut limits.connections;
        let spec = &self.connections;
        set(&mut connections.total, &spec.total);
        connections.per_agent = share(connections.total);
        set(&mut connections.per_agent, &spec.per_agent);
        set(
            &mut connections.unidentified_per_address,
            &spec.unidentified_per_address,
        );
        set_time(&mut connections.idle, &spec.idle);
        set_time(&mut connections.ping, &spec.ping);
        set_time(&mut connections.tunnel_start, &spec.tunnel_start);
        set_time(&mut connections.handshake, &spec.handshake);

        let (requests, spec) = (&mut limits.requests, &self.requests);
        if let Some(size) = &spec.head_size {
            requests.head_size = usize::try_from(size.0).unwrap_or(usize::MAX);
        }
        set(&mut requests.head_fields, &spec.head_fields);
        set_time(&mut requests.head_time, &spec.head_time);
        set_time(&mut requests.body_idle, &spec.body_idle);

        let (streams, spec) = (&mut limits.streams, &self.streams);
        if let Some(most) = &spec.per_connection {
            streams.per_connection = most.value;
        }
        set(&mut streams.total, &spec.total);
        streams.per_agent = share(streams.total);
        set(&mut streams.per_agent, &spec.per_agent);

        set_size(&mut limits.bodies.kept, &self.bodies.kept);
        let (bodies, spec) = (&mut limits.bodies, &self.bodies);
        set_size(&mut bodies.read, &spec.read);
        bodies.read_per_agent = if one { bodies.read } else { bodies.read / 4 };
        set_size(&mut bodies.read_per_agent, &spec.read_per_agent);
        set_size(&mut limits.answers.windows, &self.answers.windows);
        set_size(&mut limits.answers.read, &self.answers.read);
        set_size(
            &mut limits.answers.web_socket_frame,
            &self.answers.web_socket_frame,
        );
        set(&mut limits.origins.idle, &self.origins.idle);
        set(
            &mut limits.origins.idle_per_host,
            &self.origins.idle_per_host,
        );
        set(&mut limits.origins.head_fields, &self.origins.head_fields);
        set_time(&mut limits.origins.ping, &self.origins.ping);
        if let Some(size) = &self.origins.head_size {
            limits.origins.head_size = usize::try_from(size.0).unwrap_or(usize::MAX);
        }
        set(&mut limits.leaves.cached, &self.leaves.cached);
        set_rate(&mut limits.leaves.mints, &self.leaves.mints);
        set_rate(
            &mut limits.leaves.mints_per_agent,
            &self.leaves.mints_per_agent,
        );
        set(&mut limits.dns.answers, &self.dns.answers);
        set(&mut limits.dns.lookups, &self.dns.lookups);
        set_time(&mut limits.dns.timeout, &self.dns.timeout);
        limits
    }
}

fn set(to: &mut usize, written: &Option<Located<u32>>) {
    if let Some(written) = written {
        *to = written.value as usize;
    }
}

fn set_time(to: &mut Duration, written: &Option<Located<Span>>) {
    if let Some(written) = written {
        *to = written.value.0;
    }
}

fn set_size(to: &mut u64, written: &Option<Located<Size>>) {
    if let Some(written) = written {
        *to = written.value.0;
    }
}

fn set_rate(to: &mut Rate, written: &Option<Located<Pace>>) {
    if let Some(Located { value, .. }) = written {
        *to = Rate {
            count: value.count,
            period: value.period,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(yaml: &str) -> LimitsSpec {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn nothing_written_is_the_defaults() {
        assert_eq!(parsed("{}").compiled(1), Limits::default());
    }

    #[test]
    fn of_several_agents_none_may_take_all() {
        let limits = parsed("connections: {total: 100}\nstreams: {total: 10}");
        let several = limits.compiled(2);
        assert_eq!(several.connections.per_agent, 25);
        assert_eq!(several.streams.per_agent, 2);
        assert_eq!(several.bodies.read_per_agent, 64 << 20);
        assert_eq!(limits.compiled(1).connections.per_agent, 100);
        let told = parsed("connections: {perAgent: 7}").compiled(9);
        assert_eq!(told.connections.per_agent, 7);
    }

    #[test]
    fn what_is_written_is_what_counts() {
        let limits = parsed(
            "
connections: {idle: 1s, ping: 16s, tunnelStart: 2s, handshake: 3s, unidentifiedPerAddress: 4}
requests: {headSize: 16KiB, headFields: 50, headTime: 5s, bodyIdle: 6s}
streams: {perConnection: 7}
bodies: {kept: 8MiB, read: 9MiB, readPerAgent: 2MiB}
answers: {windows: 64MiB, read: 3MiB, webSocketFrame: 1MiB}
origins: {idle: 21, idlePerHost: 22, headSize: 23KiB, headFields: 24, ping: 25s}
leaves: {cached: 20, mints: 11/s, mintsPerAgent: 12/min}
dns: {answers: 13, lookups: 14, timeout: 15s}
",
        )
        .compiled(1);
        let seconds = Duration::from_secs;
        let connections = limits.connections;
        assert_eq!(
            [
                connections.idle,
                connections.ping,
                connections.tunnel_start,
                connections.handshake
            ],
            [seconds(1), seconds(16), seconds(2), seconds(3)]
        );
        assert_eq!(connections.unidentified_per_address, 4);
        assert_eq!(limits.requests.head_size, 16 << 10);
        assert_eq!(limits.requests.head_fields, 50);
        assert_eq!(
            [limits.requests.head_time, limits.requests.body_idle],
            [seconds(5), seconds(6)]
        );
        assert_eq!(limits.streams.per_connection, 7);
        let bodies = limits.bodies;
        assert_eq!(
            [bodies.kept, bodies.read, bodies.read_per_agent],
            [8 << 20, 9 << 20, 2 << 20]
        );
        assert_eq!(
            [
                limits.answers.windows,
                limits.answers.read,
                limits.answers.web_socket_frame
            ],
            [64 << 20, 3 << 20, 1 << 20]
        );
        let origins = limits.origins;
        assert_eq!([origins.idle, origins.idle_per_host], [21, 22]);
        assert_eq!([origins.head_size, origins.head_fields], [23 << 10, 24]);
        assert_eq!(origins.ping, seconds(25));
        assert_eq!(limits.leaves.cached, 20);
        assert_eq!(limits.leaves.mints.count, 11);
        assert_eq!(limits.leaves.mints_per_agent.period, seconds(60));
        assert_eq!([limits.dns.answers, limits.dns.lookups], [13, 14]);
        assert_eq!(limits.dns.timeout, seconds(15));
    }
}
