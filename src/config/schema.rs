//! Owns the JSON Schema of all documents, for editors that complete and check while one writes.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::budget::EgressBudgetSpec;
use super::credential::EgressCredentialSpec;
use super::documents::API_VERSION;
use super::policy::EgressPolicySpec;
use super::root::TollgateConfigSpec;

/// One schema for every kind; `kind` says which of its branches applies.
pub fn json_schema() -> Value {
    let mut generator = SchemaGenerator::default();
    let kinds = [
        kind::<EgressPolicySpec>(&mut generator, "EgressPolicy", "Where agents may go."),
        kind::<EgressCredentialSpec>(
            &mut generator,
            "EgressCredential",
            "Where a secret comes from, and which hosts may receive it.",
        ),
        kind::<EgressBudgetSpec>(
            &mut generator,
            "EgressBudget",
            "What agents may spend on models, and how fast.",
        ),
        kind::<TollgateConfigSpec>(
            &mut generator,
            "TollgateConfig",
            "The process's own settings.",
        ),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tollgate document",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

fn kind<S: JsonSchema>(generator: &mut SchemaGenerator, name: &str, description: &str) -> Value {
    let strings = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    json!({
        "title": name,
        "description": description,
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": name },
            "metadata": {
                "type": "object",
                "properties": {
                    "name": {
                        "description": "The document's name, unique among its kind.",
                        "type": "string",
                        "maxLength": 253,
                        "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
                    },
                    "namespace": { "type": "string" },
                    "uid": {
                        "description": "What stays the same when the document is renamed.",
                        "type": "string",
                    },
                    "labels": strings,
                    "annotations": strings,
                },
                "required": ["name"],
                "additionalProperties": false,
            },
            "spec": generator.subschema_for::<S>(),
        },
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::documents::KINDS;
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    found.push(target.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_schema_has_a_branch_for_every_kind() {
        let schema = json_schema();
        let kinds: Vec<&str> = schema["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|branch| branch["properties"]["kind"]["const"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, KINDS);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema = json_schema();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > 10);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(schema.pointer(pointer).is_some(), "{target}");
        }
    }

    #[test]
    fn keys_have_their_help_and_unknown_ones_are_refused() {
        let schema = json_schema();
        let rule = &schema["$defs"]["EgressRuleSpec"];
        assert_eq!(rule["additionalProperties"], false);
        let hosts = rule["properties"]["hosts"]["description"].as_str().unwrap();
        assert!(hosts.starts_with("Hosts:"), "{hosts}");
    }
}
