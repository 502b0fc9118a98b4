//! The private certificate authority, the accepting side and the origin side of TLS.

pub mod accept;
pub mod authority;
pub mod error;
#[cfg(test)]
mod interop;
mod key;
pub mod leaf;
mod mint_limit;
mod names;
mod pem;
pub mod roots;
pub mod trust;
pub mod upstream;
pub mod verdict;
