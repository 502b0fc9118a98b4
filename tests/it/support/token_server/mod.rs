//! A token server that forgives nothing, and a protected API that shares its truth: the referee of
//! the sentences about OAuth (RFC 6749, 7523, 7636, 8628, GitHub Apps).

mod api;
mod clock;
mod endpoint;
mod fault;
mod gate;
mod ledger;
mod login;
mod mint;
mod request;
mod server;
mod settings;

pub use api::{ProtectedApi, Seen, Verdict};
pub use fault::{Fault, Stage};
pub use gate::Gate;
pub use ledger::Truth;
pub use login::{Asked, Consent};
pub use mint::Issued;
pub use server::{TokenServer, token_server};
pub use settings::{BodyMode, ClientAuth, TokenServerBuilder};
