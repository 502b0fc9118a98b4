//! Owns the limits of a process as numbers: what agents, and origins on their behalf, may take of it.
//! Where each is kept is said at its field; README's section on limits derives the bound on memory from them.

use std::time::Duration;

/// Every limit. Small enough to be copied to whoever keeps a part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Agents' connections.
    pub connections: ConnectionLimits,
    /// Requests' heads and bodies.
    pub requests: RequestLimits,
    /// HTTP/2 streams.
    pub streams: StreamLimits,
    /// Memory for bodies.
    pub bodies: BodyLimits,
    /// Answers that are searched.
    pub answers: AnswerLimits,
    /// Connections to origins.
    pub origins: OriginLimits,
    /// Certificates for agents.
    pub leaves: LeafLimits,
    /// Names.
    pub dns: DnsLimits,
}

/// Connections of agents. Kept by `net/places`, the times by `net/gate`, `proxy/intercept` and `proxy/tunnel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open at once.
    pub total: usize,
    /// Of one agent.
    pub per_agent: usize,
    /// Of one address, before they have named their agent.
    pub unidentified_per_address: usize,
    /// Without a request under way, or with nothing passing.
    pub idle: Duration,
    /// Silence of an agent on HTTP/2 before it is asked with a PING (RFC 9113, section 6.7). After as long again in which
    /// it takes nothing either, it is gone.
    pub ping: Duration,
    /// From the answer to CONNECT to the first byte within.
    pub tunnel_start: Duration,
    /// From a TLS handshake's first byte to its end.
    pub handshake: Duration,
}

/// Requests as they come in. Kept by `net/gate` and `net/framing`, on HTTP/2 by the library and `proxy/upload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Octets of the request line and all fields together.
    pub head_size: usize,
    /// Fields.
    pub head_fields: usize,
    /// From the first byte of a head to its last.
    pub head_time: Duration,
    /// Silence within a body, but for one on HTTP/2 that tells no length and is not read whole.
    pub body_idle: Duration,
}

/// HTTP/2 streams under way. An HTTP/1.1 connection has one request under way, and is counted itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// On one connection, as SETTINGS_MAX_CONCURRENT_STREAMS announces it (RFC 9113, section 6.5.2).
    pub per_connection: u32,
    /// Of one agent, on all its connections.
    pub per_agent: usize,
    /// Of all agents.
    pub total: usize,
}

/// Memory for bodies, in octets, of all exchanges together. Kept by `proxy/spool` and `proxy/whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// For those that may have to be sent again.
    pub kept: u64,
    /// For those that must be read whole.
    pub read: u64,
    /// For those of one agent.
    pub read_per_agent: u64,
}

/// Answers that are searched for secrets. Kept by `proxy/origin_body` and `scrub/websocket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimits {
    /// Memory for the windows of codings that are undone, in octets, of all answers together.
    pub windows: u64,
    /// Memory for pieces of answers that are read for what they used, in octets, of all answers together.
    pub read: u64,
    /// The longest frame of a WebSocket whose text is searched, in octets.
    pub web_socket_frame: u64,
}

/// Connections to origins, those that no request is under way on, and heads of answers. Kept by `proxy/under_way` and `proxy/upstream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginLimits {
    /// Open at once, of all origins.
    pub idle: usize,
    /// Of one host, over HTTP/1.1; an HTTP/2 connection takes what comes next in any case.
    pub idle_per_host: usize,
    /// Octets of an answer's head, and as much is read ahead of its body over HTTP/1.1.
    pub head_size: usize,
    /// Fields of an answer's head.
    pub head_fields: usize,
    /// Silence on HTTP/2, while requests are under way, before the origin is asked with a PING; after as long again
    /// in which it takes nothing either, it is gone.
    pub ping: Duration,
}

/// Certificates made for agents. Kept by `tls/leaf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeafLimits {
    /// Kept ready; the least recently used go.
    pub cached: usize,
    /// Made, for all agents.
    pub mints: Rate,
    /// Made for one agent.
    pub mints_per_agent: Rate,
}

/// So many in a stretch of time, and as many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In which time.
    pub period: Duration,
}

/// Names that are looked up. Kept by `net/resolve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsLimits {
    /// Addresses of one answer that are used; the others are left aside.
    pub answers: usize,
    /// Lookups under way at once.
    pub lookups: usize,
    /// How long one may take, its repetitions included.
    pub timeout: Duration,
}

/// For the library's clocks that are kept here, where more is known.
pub const NO_CLOCK: Duration = Duration::from_secs(365 * 86400);

/// Answers that are read on at once after their agents have left, for what they cost.
pub const LEFT_ANSWERS: usize = 100;

/// Connections to the admin port at once. Probes, scrapers and operators have a few; what comes beyond takes the place
/// of another, so that whoever reaches the port cannot take the descriptors and the memory that agents need.
pub const ADMIN_CONNECTIONS: usize = 64;

/// The program, its caches and logs.
const BASE: u64 = 48 * MIB;
/// An agent's connection besides its head: an HTTP/2 window of uploads that no origin takes, TLS, buffers.
const CONNECTION: u64 = MIB + MIB / 4;
/// A request under way: what was read of its answer and not taken, what of a piece of it is kept outside
/// `answers.read`, and its connection to the origin, whose answers have heads of this size at most.
const EXCHANGE: u64 = MIB;
const USUAL_ORIGIN_HEAD: usize = 128 * 1024;
/// A connection to the admin port: a head, and an answer that is not taken, of which the metrics are the longest.
const ADMIN_CONNECTION: u64 = MIB / 2;
/// An answer that is read on: taken as it comes, and its connection to the origin.
const LEFT_ANSWER: u64 = MIB / 2;
/// A connection to an origin that waits for a request: TLS, and what was read ahead of the last answer.
const IDLE_ORIGIN: u64 = MIB / 4;
/// A certificate with the settings to serve it.
const LEAF: u64 = 4 * 1024;
/// A lookup and its answer.
const LOOKUP: u64 = 128 * 1024;

impl Limits {
    /// The most memory, in octets, that agents can make the process take.
    pub fn memory(&self) -> u64 {
        let connections = self.connections.total as u64;
        // A head is held until it is whole, and a line of it under way a second time; then the library's buffer has it.
        let connection = CONNECTION + 2 * self.requests.head_size as u64;
        let exchanges = connections + self.streams.total as u64;
        let larger_head = self.origins.head_size.saturating_sub(USUAL_ORIGIN_HEAD) as u64;
        BASE + ADMIN_CONNECTIONS as u64 * ADMIN_CONNECTION
            + connections * connection
            + exchanges * (EXCHANGE + 2 * larger_head)
            + LEFT_ANSWERS as u64 * LEFT_ANSWER
            + self.bodies.kept
            + self.bodies.read
            + self.answers.windows
            + self.origins.idle as u64 * IDLE_ORIGIN
            + self.answers.read
            + self.leaves.cached as u64 * LEAF
            + self.dns.lookups as u64 * LOOKUP
    }
}

impl Default for Limits {
    /// For one agent: what all may take, it may.
    fn default() -> Self {
        let connections = ConnectionLimits::default();
        Self {
            connections,
            requests: RequestLimits::default(),
            streams: StreamLimits::default(),
            bodies: BodyLimits::default(),
            answers: AnswerLimits::default(),
            origins: OriginLimits::default(),
            leaves: LeafLimits::default(),
            dns: DnsLimits::default(),
        }
    }
}

const MIB: u64 = 1 << 20;

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 16 * 1024,
            per_agent: 16 * 1024,
            unidentified_per_address: 1024,
            idle: Duration::from_secs(300),
            ping: Duration::from_secs(60),
            tunnel_start: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
        }
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            head_size: 64 * 1024,
            head_fields: 100,
            head_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(60),
        }
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            per_connection: 100,
            per_agent: 16 * 1024,
            total: 16 * 1024,
        }
    }
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            kept: 64 * MIB,
            read: 256 * MIB,
            read_per_agent: 256 * MIB,
        }
    }
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self {
            windows: 256 * MIB,
            read: 128 * MIB,
            web_socket_frame: 64 * MIB,
        }
    }
}

impl Default for OriginLimits {
    fn default() -> Self {
        Self {
            idle: 512,
            idle_per_host: 64,
            head_size: USUAL_ORIGIN_HEAD,
            head_fields: 100,
            ping: Duration::from_secs(30),
        }
    }
}

impl Default for LeafLimits {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        let per_second = |count| Rate {
            count,
            period: second,
        };
        Self {
            cached: 4096,
            mints: per_second(500),
            mints_per_agent: per_second(100),
        }
    }
}

impl Default for DnsLimits {
    fn default() -> Self {
        Self {
            answers: 16,
            lookups: 256,
            timeout: Duration::from_secs(3),
        }
    }
}
