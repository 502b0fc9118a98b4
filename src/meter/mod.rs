//! Reading what calls of models will use and did use, and what that costs.

pub mod answer_limit;
pub mod bound;
pub mod call;
pub mod charge;
pub mod endpoint;
pub mod hide_usage;
pub mod json;
pub mod learned;
pub mod names;
pub mod price;
pub mod price_table;
pub mod reader;
pub mod reading;
pub mod scan;
pub mod scan_error;
pub mod unpack;
pub mod usage_option;
pub mod yocto;

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
mod delta;
mod few;
mod field;
mod frames;
mod gathered;
mod json_text;
mod kept;
mod path;
mod scan_fields;
mod scan_prompt;
mod scan_tools;
mod sse;

#[cfg(test)]
mod reader_tests;
