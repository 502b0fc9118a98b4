//! Owns what a failed handshake with an origin comes down to: a word for metrics, a sentence for the
//! agent. Nothing that the origin wrote is in either.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use webpki::Error as ChainError;

/// Why there is no TLS session with an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// The leaf, or one above it, is past its time.
    #[error("its certificate has expired")]
    Expired,
    /// The time of the leaf, or of one above it, has not come.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// The leaf does not have the name or address that was dialled.
    #[error("its certificate is for other names")]
    OtherName,
    /// No chain leads to a root: self-signed, a private authority, or an intermediate that was not sent.
    #[error("its certificate leads to no authority that is trusted here")]
    UnknownIssuer,
    /// A signature in the chain, or of the handshake, does not hold for its key.
    #[error("a signature does not hold, or its key is too short")]
    BadSignature,
    /// Signed with what is not believed any more (SHA-1), or not known.
    #[error("a certificate is signed in a way that is not accepted")]
    WeakSignature,
    /// The leaf is not for servers (RFC 5280, section 4.2.1.12).
    #[error("its certificate is not for servers")]
    OtherPurpose,
    /// One that signed is not allowed to (RFC 5280, section 4.2.1.9).
    #[error("a certificate in its chain was signed by one that is no authority")]
    NoAuthority,
    /// The leaf is an authority's own.
    #[error("its certificate is an authority's own, not a server's")]
    AuthorityItself,
    /// A name that its authority may not sign for (RFC 5280, section 4.2.1.10).
    #[error("its authority may not sign for that name")]
    OutsideConstraints,
    /// Withdrawn.
    #[error("its certificate is revoked")]
    Revoked,
    /// A chain that is refused for another reason.
    #[error("its certificate cannot be accepted")]
    BadCertificate,
    /// Neither TLS 1.2 nor 1.3, or nothing else in common.
    #[error("it speaks no TLS 1.2 or 1.3 that is acceptable")]
    NoCommonTls,
    /// It wants to know who calls.
    #[error("it asks for a client certificate")]
    ClientCertificate,
    /// It said no, and not why.
    #[error("it broke the handshake off with an alert")]
    Alert,
    /// What came is no handshake.
    #[error("what it sent is no TLS handshake")]
    Protocol,
    /// The connection ended in the middle.
    #[error("the connection broke off in the handshake")]
    BrokenOff,
}

impl Verdict {
    /// Of an error that a handshake, or the first bytes after it, ended with.
    pub fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|said| said.downcast_ref()) {
            Some(error) => Self::of_tls(error),
            None => Self::BrokenOff,
        }
    }

    /// Of what TLS itself said.
    pub fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::NoCommonTls,
            _ => Self::Protocol,
        }
    }

    /// The label in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::OtherName => "other_name",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Revoked => "revoked",
            Self::ClientCertificate | Self::Alert => "alert",
            Self::NoCommonTls | Self::Protocol => "protocol",
            Self::BrokenOff => "broken_off",
            Self::BadSignature
            | Self::WeakSignature
            | Self::OtherPurpose
            | Self::NoAuthority
            | Self::AuthorityItself
            | Self::OutsideConstraints
            | Self::BadCertificate => "bad_certificate",
        }
    }

    /// The error type of RFC 9209, section 2.3.
    pub fn proxy_status(self) -> &'static str {
        match self {
            Self::ClientCertificate | Self::Alert => "tls_alert_received",
            Self::NoCommonTls | Self::Protocol => "tls_protocol_error",
            Self::BrokenOff => "connection_terminated",
            _ => "tls_certificate_error",
        }
    }

    /// What helps, if the operator of this proxy can do something.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "If the origin has a private authority, the operator names it in the rule's upstream.caFile."
            }
            Self::ClientCertificate => {
                "The operator names a certificate in the rule's upstream.clientCertificateFile and clientKeyFile."
            }
            Self::Expired | Self::NotYetValid => {
                "The origin must mend it; if it is right, the clock of the proxy is wrong."
            }
            _ => "The origin must mend it.",
        }
    }
}

fn of_certificate(error: &CertificateError) -> Verdict {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Verdict::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Verdict::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Verdict::OtherName
        }
        CertificateError::UnknownIssuer => Verdict::UnknownIssuer,
        CertificateError::BadSignature => Verdict::BadSignature,
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            Verdict::WeakSignature
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Verdict::OtherPurpose
        }
        CertificateError::Revoked => Verdict::Revoked,
        CertificateError::Other(other) => match other.0.downcast_ref() {
            Some(ChainError::CaUsedAsEndEntity) => Verdict::AuthorityItself,
            Some(ChainError::EndEntityUsedAsCa | ChainError::PathLenConstraintViolated) => {
                Verdict::NoAuthority
            }
            Some(ChainError::NameConstraintViolation) => Verdict::OutsideConstraints,
            _ => Verdict::BadCertificate,
        },
        _ => Verdict::BadCertificate,
    }
}

fn of_alert(alert: AlertDescription) -> Verdict {
    match alert {
        AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
            Verdict::NoCommonTls
        }
        AlertDescription::CertificateRequired => Verdict::ClientCertificate,
        _ => Verdict::Alert,
    }
}
