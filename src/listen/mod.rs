//! The doors agents come through.

pub mod accept;
pub mod connect;
pub mod doors;
pub mod forward;
pub mod turned_away;

mod strain;
