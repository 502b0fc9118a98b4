//! Owns the ways in which a login ends without tokens.

use super::endpoint_error::EndpointError;

/// Why a login gave no tokens. The texts never hold any part of a code or a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Nothing is known of how to log in there.
    #[error(
        "nothing says how to log in; name a known `client`, or write `login.authorizationEndpoint` or `login.deviceAuthorizationEndpoint`"
    )]
    NoWay,
    /// There is no login with a code that is entered elsewhere.
    #[error("there is no device login; log in with the browser and paste the code")]
    NoDevice,
    /// What was pasted is no code.
    #[error("this is no code; copy what the page shows, or the whole address it ends at")]
    NoCode,
    /// It came back with the state of another login, or of somebody else's (RFC 6749, section 10.12).
    #[error("this code belongs to another login; begin again and paste the code of that page")]
    OtherLogin,
    /// The person, or the provider, said no (RFC 6749, section 4.1.2.1; RFC 8628, section 3.5).
    #[error("the provider refused the login ({0})")]
    Denied(String),
    /// Nobody entered the code in time (RFC 8628, section 3.5).
    #[error("the code has expired; begin again")]
    Expired,
    /// The endpoint gave no tokens.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
}
