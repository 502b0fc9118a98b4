//! Vocabulary without I/O: what every floor above talks about.

pub mod agent;
pub mod agent_index;
pub mod charge;
pub mod cure;
pub mod host;
pub mod intent;
pub mod limits;
pub mod map;
pub mod model_api;
pub mod money;
pub mod reached;
pub mod said;
pub mod secret;
pub mod usage;
pub mod window;
