//! Who is calling.

pub mod identifier;
