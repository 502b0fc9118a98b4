//! Owns the names that budgets may know the models of a call by, however the call writes them.

use std::sync::Arc;

use super::call::Call;
use super::price_table::PriceTable;
use crate::types::model_api::ModelApi;

/// What models are counted under that nobody listed.
const UNLISTED: &str = "other";
/// No provider has a model with a longer name: what an agent makes up is not written anew in every spelling.
const LONGEST: usize = 256;

/// The name that the call's model is counted under, and every name that budgets may know it or its helpers by.
/// An agent can make names up: those that nobody listed are counted as one.
pub fn names(call: &Call, prices: &PriceTable) -> (Arc<str>, Vec<Arc<str>>) {
    let mut names = vec![call.model.clone()];
    names.extend(call.others.iter().cloned());
    let mut label = None;
    for (index, model) in std::iter::once(&call.model).chain(&call.others).enumerate() {
        spell(call.api, model, &mut names);
        let Some((own, same)) = prices.names(call.api, model) else {
            continue;
        };
        names.extend(same.iter().cloned());
        if index == 0 {
            label = Some(own);
        }
    }
    (label.unwrap_or_else(|| UNLISTED.into()), names)
}

/// Adds what `model` is called besides: without what an API lets one write around it, without its place or version,
/// and each of them in small letters.
fn spell(api: ModelApi, model: &str, names: &mut Vec<Arc<str>>) {
    let mut add = |name: &str| {
        if name != model {
            names.push(name.into());
        }
        if name.bytes().any(|octet| octet.is_ascii_uppercase()) {
            names.push(name.to_ascii_lowercase().into());
        }
    };
    add(model);
    if model.len() > LONGEST {
        return;
    }
    let bare = api.bare_name(model);
    if bare != model {
        add(bare);
    }
    if let Some(base) = api.base_name(bare) {
        add(base);
    }
    // Which tag an Ollama means that is told none.
    if api == ModelApi::Ollama && !bare.contains(':') {
        add(&format!("{bare}:latest"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_bare_name_its_base_and_in_small_letters() {
        for (api, model, known) in [
            (ModelApi::OpenAI, "gpt-4o", &[][..]),
            (ModelApi::OpenAI, "GPT-4o", &["gpt-4o"]),
            (ModelApi::Gemini, "models/gemini-x", &["gemini-x"]),
            (
                ModelApi::Vertex,
                "google/Gemini-x@001",
                &[
                    "google/gemini-x@001",
                    "Gemini-x@001",
                    "gemini-x@001",
                    "Gemini-x",
                    "gemini-x",
                ],
            ),
            (ModelApi::Bedrock, "us.anthropic.x", &["anthropic.x"]),
            (
                ModelApi::Ollama,
                "LIBRARY/qwen3",
                &["library/qwen3", "qwen3", "qwen3:latest"],
            ),
            (ModelApi::Ollama, "qwen3:8b", &[]),
        ] {
            let mut names = Vec::new();
            spell(api, model, &mut names);
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            assert_eq!(names, known, "{model}");
        }
    }

    #[test]
    fn a_name_that_no_model_has_is_not_written_in_every_spelling() {
        let mut names = Vec::new();
        spell(
            ModelApi::Gemini,
            &format!("models/{}", "x".repeat(300)),
            &mut names,
        );
        assert!(names.is_empty());
    }
}
