//! Reading what calls of models will use and did use, and what that costs.

pub mod call;
pub mod endpoint;
pub mod reader;
pub mod reading;

mod answer;
mod answer_anthropic;
mod answer_bedrock;
mod answer_chat;
mod answer_embeddings;
mod answer_gemini;
mod answer_ollama;
mod answer_responses;
mod count;
mod decode;
mod frames;
mod json_text;
mod sse;

#[cfg(test)]
mod reader_tests;
