//! What the pages say is so: their documents load, their commands parse, their tables are complete.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;
use tollgate::budget::set::BudgetSet;
use tollgate::cli::args::Cli;
use tollgate::config::load::{load_bundle, load_config};
use tollgate::config::schema::json_schema;
use tollgate::policy::compile::compile;

const PAGES: [&str; 6] = [
    "README.md",
    "deploy/observability/README.md",
    "policies/README.md",
    "certs/README.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
];

#[test]
fn every_document_in_the_readme_loads() {
    let blocks = blocks(&page("README.md"), "yaml");
    assert!(blocks.len() >= 5, "{} blocks", blocks.len());
    for text in blocks {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tollgate.yaml");
        std::fs::write(&file, &text).unwrap();
        let mut presets = Vec::new();
        if text.contains("kind: TollgateConfig") {
            let config = load_config(&file).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
            presets = config.spec.presets;
        }
        if presets.is_empty() && !text.contains("kind: Egress") {
            continue;
        }
        let bundle = load_bundle(&[file], &presets).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
        compile(&bundle).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
        BudgetSet::compile(&bundle).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    }
}

#[test]
fn every_command_in_the_readme_parses() {
    let mut seen = 0;
    for block in blocks(&page("README.md"), "sh") {
        for line in block.lines() {
            let line = line.split("  #").next().unwrap().trim();
            let line = line.trim_start_matches("eval \"$(").trim_end_matches(")\"");
            if !line.starts_with("tollgate ") {
                continue;
            }
            // What stands behind `--` is another program's.
            let words = line
                .split(" -- ")
                .next()
                .unwrap()
                .split(" > ")
                .next()
                .unwrap();
            let mut words: Vec<&str> = words.split_whitespace().collect();
            if line.contains(" -- ") {
                words.extend(["--", "program"]);
            }
            Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} commands were found");
}

#[test]
fn the_table_of_commands_is_complete() {
    let readme = page("README.md");
    let rows: Vec<&str> = readme
        .lines()
        .filter(|l| l.starts_with("| `tollgate "))
        .collect();
    let command = Cli::command();
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let start = format!("| `tollgate {}", sub.get_name());
        let names: BTreeSet<&str> = sub
            .get_subcommands()
            .map(clap::Command::get_name)
            .filter(|n| *n != "help")
            .collect();
        let rows: String = rows
            .iter()
            .filter(|r| r.starts_with(&start))
            .copied()
            .collect::<Vec<_>>()
            .join("\n");
        assert!(!rows.is_empty(), "no row for {start}");
        for name in names {
            let named = rows.contains(&format!("`{name}`")) || rows.contains(&format!(" {name}`"));
            assert!(named, "{start} {name} is not in: {rows}");
        }
    }
    for row in rows {
        let name = row
            .split_whitespace()
            .nth(2)
            .unwrap()
            .trim_matches('`')
            .trim_end_matches(',');
        assert!(
            command.find_subcommand(name).is_some(),
            "there is no `tollgate {name}`"
        );
    }
}

/// Fields of the log, read off the source that defines them. Metrics have a page of their own.
#[test]
fn the_table_of_the_access_log_is_complete() {
    let readme = page("README.md");
    let record = source("telemetry/access_log.rs");
    let body = |start: &str| {
        let body = record.split(start).nth(1).unwrap();
        body.split("\n}").next().unwrap().to_owned()
    };
    let mut fields = Vec::new();
    let mut renamed = None;
    // The fields of a cost stand among the others.
    // What a span says besides is not logged.
    let own = body("pub struct Record {")
        .replace("pub cost:", "")
        .replace("pub span:", "");
    let all = own + &body("pub struct CostRecord {");
    for line in all.lines() {
        if let Some(name) = line.split("rename = \"").nth(1) {
            renamed = name.split('"').next();
        }
        if let Some(name) = line.trim().strip_prefix("pub ") {
            fields.push(renamed.take().unwrap_or(name.split(':').next().unwrap()));
        }
    }
    assert!(fields.len() > 15, "{fields:?}");
    let log = readme
        .split("## The access log")
        .nth(1)
        .unwrap()
        .split("\n### ")
        .next()
        .unwrap();
    for field in fields {
        assert!(
            log.contains(&format!("`{field}`")),
            "the access log's {field} has no row"
        );
    }
}

#[test]
fn every_error_code_has_a_row_and_every_row_a_code() {
    let mut codes = BTreeSet::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let quoted = code
                .split('"')
                .filter(|t| t.len() == 6 && t.starts_with("TG0"));
            codes.extend(quoted.map(ToOwned::to_owned));
        }
    }
    let reference = page("policies/README.md");
    let rows: Vec<&str> = reference
        .lines()
        .filter_map(|l| l.strip_prefix("| TG")?.get(..4))
        .collect();
    let unique: BTreeSet<String> = rows.iter().map(|r| format!("TG{r}")).collect();
    assert_eq!(unique.len(), rows.len(), "a code has two rows");
    assert_eq!(unique, codes);
}

#[test]
fn every_preset_has_a_row() {
    let reference = page("policies/README.md");
    for name in tollgate::config::presets::names() {
        assert!(reference.contains(&format!("\n| `{name}` |")), "{name}");
    }
}

#[test]
fn links_lead_somewhere() {
    for name in PAGES {
        let text = page(name);
        let folder = root().join(name).parent().unwrap().to_path_buf();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if !target.contains("://") && !target.starts_with('#') {
                assert!(folder.join(target).exists(), "{name}: {target}");
            }
        }
        assert!(!text.contains('\u{2014}'), "{name} has an em dash");
    }
}

/// The reference of fields is the schema in words; `TOLLGATE_UPDATE=1` writes it anew.
#[test]
fn the_reference_of_fields_is_up_to_date() {
    let file = root().join("policies/README.md");
    let text = page("policies/README.md");
    let (before, rest) = text.split_once("<!-- fields:").unwrap();
    let (marker, rest) = rest.split_once('\n').unwrap();
    let (_, after) = rest.split_once("<!-- end of fields -->").unwrap();
    let expected = format!(
        "{before}<!-- fields:{marker}\n{}\n<!-- end of fields -->{after}",
        fields()
    );
    if std::env::var_os("TOLLGATE_UPDATE").is_some() {
        std::fs::write(&file, &expected).unwrap();
    } else {
        assert_eq!(text, expected, "run it once with TOLLGATE_UPDATE=1");
    }
}

fn fields() -> String {
    let schema = json_schema();
    let mut text = String::new();
    let mut done = BTreeSet::new();
    for kind in schema["oneOf"].as_array().unwrap() {
        let name = kind["title"].as_str().unwrap();
        write!(text, "\n### {name}\n\n{}\n", words(&kind["description"])).unwrap();
        let mut waiting = vec![("spec".to_owned(), kind["properties"]["spec"].clone())];
        while let Some((path, node)) = waiting.pop() {
            let node = resolved(&schema, &node);
            // Types that several kinds share are described once.
            if !done.insert(node.to_string()) {
                continue;
            }
            section(&schema, &path, &node, &mut text, &mut waiting);
        }
    }
    text
}

/// One table: the fields of an object, or the words to choose from.
fn section(
    schema: &Value,
    path: &str,
    node: &Value,
    text: &mut String,
    waiting: &mut Vec<(String, Value)>,
) {
    let choices: Vec<(String, Value)> = match node["oneOf"].as_array() {
        Some(choices) => choices.iter().map(|c| choice(schema, c)).collect(),
        None => Vec::new(),
    };
    let properties = node["properties"].as_object();
    let rows: Vec<(String, Value)> = match properties {
        Some(properties) => properties
            .iter()
            .map(|(n, v)| (format!("`{n}`"), v.clone()))
            .collect(),
        None => choices,
    };
    if rows.is_empty() {
        return;
    }
    write!(
        text,
        "\n`{path}`: {}\n\n| field | |\n|---|---|\n",
        words(&node["description"])
    )
    .unwrap();
    let mut below = Vec::new();
    for choice in node["oneOf"].as_array().into_iter().flatten() {
        below.extend(fields_of_choice(schema, path, choice));
    }
    for (name, value) in rows {
        let required = node["required"].as_array().is_some_and(|r| {
            r.iter()
                .any(|n| name == format!("`{}`", n.as_str().unwrap()))
        });
        let description = words(&value["description"]);
        let mark = if required { "Required. " } else { "" };
        writeln!(text, "| {name} | {mark}{description} |").unwrap();
        if properties.is_some() {
            below.push((format!("{path}.{}", name.trim_matches('`')), value));
        }
    }
    below.reverse();
    waiting.extend(below);
}

/// The fields of one of several forms, where they have fields of their own.
fn fields_of_choice(schema: &Value, path: &str, choice: &Value) -> Vec<(String, Value)> {
    let forms = choice["properties"].as_object().into_iter().flatten();
    let fields = forms.flat_map(|(word, inner)| {
        let fields = resolved(schema, inner)["properties"].as_object().cloned();
        let path = format!("{path}.{word}");
        fields
            .into_iter()
            .flatten()
            .map(move |(name, value)| (format!("{path}.{name}"), value))
    });
    fields.collect()
}

/// `Word` or `word: { field, field }`, as it is written.
fn choice(schema: &Value, choice: &Value) -> (String, Value) {
    if let Some(word) = choice["const"].as_str() {
        return (format!("`{word}`"), choice.clone());
    }
    let (word, inner) = choice["properties"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    let inner = resolved(schema, inner);
    let mut value = choice.clone();
    let Some(properties) = inner["properties"].as_object() else {
        let written = if inner["type"] == "object" {
            "{}"
        } else {
            "…"
        };
        return (format!("`{word}: {written}`"), value);
    };
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    let mut description = words(&choice["description"]);
    for (name, property) in properties {
        write!(
            description,
            " `{name}`: {}",
            words(&property["description"])
        )
        .unwrap();
    }
    value["description"] = description.into();
    (format!("`{word}: {{ {} }}`", names.join(", ")), value)
}

/// Through `$ref`, `anyOf` with null, and lists, to the type that is meant.
fn resolved(schema: &Value, node: &Value) -> Value {
    if let Some(name) = node["$ref"].as_str() {
        return resolved(
            schema,
            &schema["$defs"][name.trim_start_matches("#/$defs/")],
        );
    }
    if let Some(first) = node["anyOf"].as_array().and_then(|a| a.first()) {
        return resolved(schema, first);
    }
    match &node["items"] {
        Value::Null => node.clone(),
        items => resolved(schema, items),
    }
}

fn words(description: &Value) -> String {
    description
        .as_str()
        .unwrap_or_default()
        .replace('\n', " ")
        .replace('|', "\\|")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn source(name: &str) -> String {
    std::fs::read_to_string(root().join("src").join(Path::new(name))).unwrap()
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}
