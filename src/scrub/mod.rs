//! What came back with a secret in it leaves without: the secret is found however it was written, and the
//! agent's placeholder takes its place.
//!
//! What it does not do: an origin may change a secret in ways that no list ends (reverse it, hash it, tell
//! it digit by digit); the rule that says which paths may be asked is the guard against that.

pub mod coding;
pub mod decoder;
pub mod head;
pub mod needle;
pub mod needles;
pub mod spelling;
pub mod stand_in;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod websocket;
