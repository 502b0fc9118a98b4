//! A stand-in for the providers of models that answers as they do, errs as they do, and keeps a ledger
//! of what it would bill: the referee of the sentences about budgets.

pub mod anthropic;
pub mod bedrock;
pub mod chat;
pub mod clouds;
pub mod conduct;
pub mod embeddings;
pub mod gate;
pub mod gemini;
pub mod ollama;
pub mod piece;
pub mod prices;
pub mod responses;
pub mod server;
pub mod stream;
pub mod truth;
