//! What readers say of real, cut, broken and hostile answers of every API.

mod anthropic;
mod bedrock;
mod carrying;
mod gemini;
mod openai;
mod said;
mod support;
