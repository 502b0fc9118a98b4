//! Composition: the only floor that knows every concrete type.

pub mod audit;
pub mod authority;
pub mod books;
pub mod borders;
pub mod collector;
pub mod compose;
pub mod credentials;
pub mod error;
pub mod given_up;
pub mod grant_desk;
pub mod grants;
pub mod harden;
pub mod identity;
pub mod outbound;
pub mod reload;
pub mod run;
pub mod sealed;
mod secret_store;
pub mod settings;
pub mod state;
pub mod token_transport;
pub mod traces;
