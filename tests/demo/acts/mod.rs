//! The story, act by act.

pub mod crashing;
pub mod renewing;
pub mod searching;
pub mod sharing;
pub mod taking_over;
