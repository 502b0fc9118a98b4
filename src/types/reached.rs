//! Owns what is said of a limit that was reached: which one, its value, and the setting that changes it.

use std::fmt;
use std::time::Duration;

/// A limit, as `spec.limits` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections open at once.
    Connections,
    /// Those of one agent.
    AgentConnections,
    /// Those of one address that have named no agent.
    AddressConnections,
    /// A connection on which nothing happens.
    IdleConnection,
    /// An HTTP/2 connection whose agent says nothing, not even in answer to a PING.
    Ping,
    /// The same of an origin.
    OriginPing,
    /// A CONNECT that nothing follows.
    TunnelStart,
    /// A TLS handshake that does not end.
    Handshake,
    /// A head's size.
    HeadSize,
    /// A head's fields.
    HeadFields,
    /// A head's time.
    HeadTime,
    /// A body's silence.
    BodyIdle,
    /// HTTP/2 streams of one agent.
    AgentStreams,
    /// HTTP/2 streams of all.
    Streams,
    /// Memory for bodies that are read whole.
    ReadBodies,
    /// Memory for bodies of one agent that are read whole.
    AgentReadBodies,
    /// Memory for undoing codings.
    Windows,
    /// A WebSocket frame's size.
    WebSocketFrame,
    /// Certificates made for all.
    Mints,
    /// Certificates made for one agent.
    AgentMints,
    /// Lookups of names at once.
    Lookups,
}

/// How much a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u64),
    /// So many octets.
    Bytes(u64),
    /// So long.
    Time(Duration),
    /// So many in a time.
    Pace(u32, Duration),
}

/// A limit that was reached, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Which.
    pub limit: Limit,
    /// Its value.
    pub value: Amount,
}

impl Limit {
    /// Every limit there is.
    pub const ALL: [Self; 21] = [
        Self::Connections,
        Self::AgentConnections,
        Self::AddressConnections,
        Self::IdleConnection,
        Self::Ping,
        Self::OriginPing,
        Self::TunnelStart,
        Self::Handshake,
        Self::HeadSize,
        Self::HeadFields,
        Self::HeadTime,
        Self::BodyIdle,
        Self::AgentStreams,
        Self::Streams,
        Self::ReadBodies,
        Self::AgentReadBodies,
        Self::Windows,
        Self::WebSocketFrame,
        Self::Mints,
        Self::AgentMints,
        Self::Lookups,
    ];

    /// This limit was reached at this count.
    pub fn count(self, value: usize) -> Reached {
        self.at(Amount::Count(value as u64))
    }

    /// This limit was reached at so many octets.
    pub fn bytes(self, value: u64) -> Reached {
        self.at(Amount::Bytes(value))
    }

    /// This limit was reached after so long.
    pub fn time(self, value: Duration) -> Reached {
        self.at(Amount::Time(value))
    }

    /// This limit was reached at this value.
    pub fn at(self, value: Amount) -> Reached {
        Reached { limit: self, value }
    }

    /// The setting below `spec.limits`, and the label in metrics.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Connections => "connections.total",
            Self::AgentConnections => "connections.perAgent",
            Self::AddressConnections => "connections.unidentifiedPerAddress",
            Self::IdleConnection => "connections.idle",
            Self::Ping => "connections.ping",
            Self::OriginPing => "origins.ping",
            Self::TunnelStart => "connections.tunnelStart",
            Self::Handshake => "connections.handshake",
            Self::HeadSize => "requests.headSize",
            Self::HeadFields => "requests.headFields",
            Self::HeadTime => "requests.headTime",
            Self::BodyIdle => "requests.bodyIdle",
            Self::AgentStreams => "streams.perAgent",
            Self::Streams => "streams.total",
            Self::ReadBodies => "bodies.read",
            Self::AgentReadBodies => "bodies.readPerAgent",
            Self::Windows => "answers.windows",
            Self::WebSocketFrame => "answers.webSocketFrame",
            Self::Mints => "leaves.mints",
            Self::AgentMints => "leaves.mintsPerAgent",
            Self::Lookups => "dns.lookups",
        }
    }

    /// Whether room comes by itself, so that the same may pass a moment later.
    pub fn passes(self) -> bool {
        !matches!(
            self,
            Self::HeadSize | Self::HeadFields | Self::WebSocketFrame
        )
    }

    /// Whether it is the connection that went past it, so that it ends.
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::Connections
                | Self::AgentConnections
                | Self::AddressConnections
                | Self::HeadSize
                | Self::HeadFields
                | Self::HeadTime
                | Self::BodyIdle
        )
    }

    /// A stable word for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connections | Self::AgentConnections | Self::AddressConnections => {
                "too_many_connections"
            }
            Self::IdleConnection => "idle",
            Self::Ping | Self::OriginPing => "silent",
            Self::TunnelStart => "tunnel_no_client_hello",
            Self::Handshake => "handshake_timeout",
            Self::HeadSize | Self::HeadFields => "head_too_large",
            Self::HeadTime => "slow_request",
            Self::BodyIdle => "slow_body",
            Self::AgentStreams | Self::Streams => "too_many_streams",
            Self::ReadBodies | Self::AgentReadBodies => "too_many_bodies",
            Self::Windows => "too_many_codings",
            Self::WebSocketFrame => "frame_too_large",
            Self::Mints | Self::AgentMints => "too_many_certificates",
            Self::Lookups => "too_many_lookups",
        }
    }
}

impl Reached {
    /// What the one who reached it can do, and whom else to ask.
    pub fn remedy(&self) -> String {
        let own = match self.limit {
            Limit::HeadSize | Limit::HeadFields => {
                "Send fewer and shorter headers; what is long belongs into the body"
            }
            Limit::HeadTime | Limit::BodyIdle => "Send the whole request without long pauses",
            Limit::Connections | Limit::AgentConnections | Limit::AddressConnections => {
                "Use connections again and close those that are not needed; later there may be room"
            }
            Limit::AgentStreams | Limit::Streams => {
                "Wait for answers before asking more; later there may be room"
            }
            Limit::Mints | Limit::AgentMints => "Wait a second before asking for more new hosts",
            _ => "Try again in a moment",
        };
        format!(
            "{own}. The operator can change `spec.limits.{}`, which is {}.",
            self.limit.setting(),
            self.value
        )
    }
}

impl fmt::Display for Reached {
    /// One sentence without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match self.limit {
            Limit::Connections => write!(
                f,
                "the proxy has {value} connections open, the most it takes"
            ),
            Limit::AgentConnections => {
                write!(
                    f,
                    "this agent has {value} connections open, the most it may have"
                )
            }
            Limit::AddressConnections => write!(
                f,
                "{value} connections of this address have named no agent yet, the most that may"
            ),
            Limit::IdleConnection => write!(f, "nothing happened on the connection for {value}"),
            Limit::Ping | Limit::OriginPing => {
                write!(f, "no answer came to a PING after {value} without a word")
            }
            Limit::TunnelStart => write!(f, "nothing followed the CONNECT for {value}"),
            Limit::Handshake => write!(f, "the TLS handshake took longer than {value}"),
            Limit::HeadSize => write!(f, "the request line and headers are larger than {value}"),
            Limit::HeadFields => write!(f, "the request has more than {value} header fields"),
            Limit::HeadTime => {
                write!(
                    f,
                    "the request line and headers took longer than {value} to arrive"
                )
            }
            Limit::BodyIdle => write!(
                f,
                "nothing came of the request's body for {value}, or not all of it in ten times that"
            ),
            Limit::AgentStreams => {
                write!(
                    f,
                    "this agent has {value} HTTP/2 requests under way, the most it may have"
                )
            }
            Limit::Streams => {
                write!(
                    f,
                    "the proxy has {value} HTTP/2 requests under way, the most it takes"
                )
            }
            Limit::ReadBodies => write!(
                f,
                "the proxy holds bodies that must be read whole, {value} at most, and has no room for this one"
            ),
            Limit::AgentReadBodies => write!(
                f,
                "this agent has bodies under way that must be read whole, {value} at most, and there is no room for this one"
            ),
            Limit::Windows => write!(
                f,
                "the proxy undoes codings of answers in {value} at most, and has no room for this one"
            ),
            Limit::WebSocketFrame => write!(f, "a WebSocket frame is longer than {value}"),
            Limit::Mints => write!(
                f,
                "the proxy makes certificates for {value} new hosts at most"
            ),
            Limit::AgentMints => {
                write!(f, "this agent may ask for {value} new hosts at most")
            }
            Limit::Lookups => write!(
                f,
                "the proxy looks up {value} names at once, the most it does"
            ),
        }
    }
}

impl std::error::Error for Reached {}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Bytes(bytes) => {
                let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
                let whole = units
                    .iter()
                    .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
                match whole {
                    Some((shift, unit)) => write!(f, "{} {unit}", bytes >> shift),
                    None => write!(f, "{bytes} bytes"),
                }
            }
            Self::Time(time) => write!(f, "{time:?}"),
            Self::Pace(count, period) => match period.as_secs() {
                1 => write!(f, "{count}/s"),
                60 => write!(f, "{count}/min"),
                3600 => write!(f, "{count}/h"),
                _ => write!(f, "{count} in {period:?}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_with_its_value_and_its_setting() {
        let reached = Limit::HeadSize.bytes(64 << 10);
        assert!(reached.to_string().ends_with("larger than 64 KiB"));
        assert!(
            reached
                .remedy()
                .contains("`spec.limits.requests.headSize`, which is 64 KiB")
        );
        for (amount, shown) in [
            (Amount::Bytes(1000), "1000 bytes"),
            (Amount::Bytes(3 << 20), "3 MiB"),
            (Amount::Time(Duration::from_millis(1500)), "1.5s"),
            (Amount::Pace(5, Duration::from_secs(60)), "5/min"),
            (Amount::Count(7), "7"),
        ] {
            assert_eq!(amount.to_string(), shown);
        }
    }
}
