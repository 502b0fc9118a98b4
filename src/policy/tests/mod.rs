//! Tables of intents and answers, over policies as users write them.

mod budgets;
mod contradictions;
mod decisions;
mod errors;
mod explanations;
mod fixture;
mod oracle;
mod presets;
