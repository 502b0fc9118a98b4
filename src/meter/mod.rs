//! Reading what calls of models will use and did use, and what that costs.

pub mod call;
pub mod endpoint;
pub mod reader;
pub mod reading;

mod answer;
mod answer_anthropic;
mod answer_chat;
mod answer_responses;
mod count;
mod decode;
mod json_text;
mod sse;
