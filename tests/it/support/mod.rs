//! What the sentences are written with: the binary, origins, doors and clients.

pub mod agent;
pub mod anthropic;
pub mod ca;
pub mod caller;
#[macro_use]
pub mod clients;
pub mod door;
pub mod echo;
pub mod github;
pub mod hello;
pub mod inside;
pub mod kube_access;
pub mod kube_api;
pub mod kube_faults;
pub mod kube_objects;
pub mod kube_request;
pub mod kube_schema;
pub mod kube_status;
pub mod messages;
pub mod needles;
pub mod openai;
pub mod operator;
pub mod origin;
pub mod owner;
pub mod proxy;
pub mod recorded;
pub mod replicas;
pub mod reply;
pub mod scene;
pub mod telegram;
pub mod token_server;
pub mod token_worker;
pub mod traffic;
pub mod tunnel;
pub mod visitor;
pub mod wire;
