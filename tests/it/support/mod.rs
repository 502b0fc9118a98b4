//! What the sentences are written with: the binary, origins, doors and clients.

pub mod agent;
pub mod anthropic;
pub mod ca;
#[macro_use]
pub mod clients;
pub mod door;
pub mod echo;
pub mod github;
pub mod hello;
pub mod inside;
pub mod needles;
pub mod openai;
pub mod operator;
pub mod origin;
pub mod proxy;
pub mod recorded;
pub mod reply;
pub mod scene;
pub mod telegram;
pub mod tunnel;
pub mod visitor;
pub mod wire;
