//! A token server that forgives nothing, and a protected API that shares its truth: the referee of
//! the sentences about OAuth (RFC 6749, 7009, 7523, 7636, 8628, GitHub Apps).

pub mod api;
mod assertion;
mod clock;
mod codex;
pub mod device;
mod endpoint;
pub mod fault;
pub mod gate;
pub mod jwt;
pub mod ledger;
pub mod login;
pub mod mint;
mod request;
pub mod server;
pub mod settings;
pub mod truth;
