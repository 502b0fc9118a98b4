//! What came back with a secret in it leaves without: the secret is found however it was written, and the
//! agent's placeholder takes its place.
//!
//! What it does not do: an origin may change a secret in ways that no list ends (reverse it, hash it, tell
//! it digit by digit); the rule that says which paths may be asked is the guard against that. And where an
//! agent may choose what an origin repeats and when, what it gets tells it whether a guess was right: of the
//! whole secret by what stands there, of its beginning by what waits. Of a key that is not a word, no guess is.

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
