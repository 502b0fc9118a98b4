//! Owns reading the tools a request offers to a model: which of them the provider runs, and for what fee.

use super::field::{Field, Folded, Seen, field, natural, string};
use super::gathered::Gathered;
use super::json::{Kind, Walker};
use super::scan_error::ScanError;
use super::scan_prompt::{Look, Place};
use crate::types::usage::Fee;

/// The fields of a tool that decide what it may cost.
#[derive(Clone, Copy)]
enum Slot {
    Type,
    MaxUses,
    Model,
}

const TOOL: &[Field<Slot>] = &[
    Field {
        folded: "type",
        spellings: &["type"],
        slot: Slot::Type,
    },
    Field {
        folded: "maxuses",
        spellings: &["max_uses"],
        slot: Slot::MaxUses,
    },
    Field {
        folded: "model",
        spellings: &["model"],
        slot: Slot::Model,
    },
];

/// The tools of Anthropic's and OpenAI's APIs: objects that say their `type`.
pub(super) fn typed(walker: &mut Walker<'_>, look: &mut Look<'_>) -> Result<(), ScanError> {
    match walker.peek()? {
        Kind::Array => walker.array(|walker| typed(walker, look)),
        Kind::Object => typed_one(walker, look),
        _ => walker.pass(),
    }
}

fn typed_one(walker: &mut Walker<'_>, look: &mut Look<'_>) -> Result<(), ScanError> {
    let (mut kind, mut uses, mut model) = (None, None, None);
    let mut seen = Seen::default();
    walker.object(|walker, name| {
        match field(TOOL, &mut seen, name)? {
            Some((field, Slot::Type)) => kind = string(walker, field)?,
            Some((field, Slot::MaxUses)) => uses = natural(walker, field)?,
            Some((field, Slot::Model)) => model = string(walker, field)?,
            // OpenAI's namespaces have tools of their own.
            None if Folded::of(name).as_str() == "tools" => typed(walker, look)?,
            None => look.member(walker, Place::Data, name)?,
        }
        Ok::<_, ScanError>(())
    })?;
    let kind = kind.map(|kind| kind.said().to_ascii_lowercase());
    let model = model.map(|model| model.said());
    charge(look.gathered, kind.as_deref(), uses, model.as_deref())
}

/// What a tool of this type may cost. One that is not known may put anything into the prompt.
fn charge(
    gathered: &mut Gathered,
    kind: Option<&str>,
    uses: Option<u64>,
    model: Option<&str>,
) -> Result<(), ScanError> {
    if let Some(model) = model {
        gathered.model(model)?;
    }
    let Some(kind) = kind else {
        return Ok(());
    };
    // Run by the client, which sends the result in a request of its own.
    let by_client = [
        "custom",
        "function",
        "local_shell",
        "apply_patch",
        "namespace",
        "tool_search",
        "computer",
        "computer_use_preview",
        "computer-preview",
    ];
    let by_client_since = [
        "bash_",
        "text_editor_",
        "computer_2",
        "memory_",
        "tool_search_tool_",
    ];
    if by_client.contains(&kind) || by_client_since.iter().any(|head| kind.starts_with(head)) {
        return Ok(());
    }
    gathered.reaches_out = true;
    match kind {
        _ if kind.starts_with("web_search") || kind == "browser_search" => {
            gathered.tool(Fee::WebSearch, uses);
        }
        _ if kind.starts_with("file_search") => gathered.tool(Fee::FileSearch, uses),
        _ if kind.starts_with("code_execution") || matches!(kind, "code_interpreter" | "shell") => {
            gathered.tool(Fee::CodeExecution, uses);
        }
        // Pictures are made, and billed, by another model.
        "image_generation" if model.is_none() => gathered.model("gpt-image-1")?,
        _ => {}
    }
    Ok(())
}

/// Gemini's tools: objects whose only member's name says what they are.
pub(super) fn google(walker: &mut Walker<'_>, look: &mut Look<'_>) -> Result<(), ScanError> {
    match walker.peek()? {
        Kind::Array => walker.array(|walker| google(walker, look)),
        Kind::Object => walker.object(|walker, name| {
            let grounding = match Folded::of(name).as_str() {
                "functiondeclarations" => return look.through(walker, Place::Data),
                "computeruse" => return walker.pass(),
                "googlesearch"
                | "googlesearchretrieval"
                | "enterprisewebsearch"
                | "googlemaps"
                | "retrieval" => true,
                // Code is run and pages are fetched for the price of their tokens.
                _ => false,
            };
            if anything_but_null(walker)? {
                look.gathered.reaches_out = true;
                if grounding {
                    look.gathered.tool(Fee::Grounding, Some(1));
                    look.gathered.tool(Fee::GroundedSearch, None);
                }
            }
            Ok(())
        }),
        _ => walker.pass(),
    }
}

/// Bedrock's `toolConfig`: `{tools: [{toolSpec}, {cachePoint}, {systemTool: {name}}]}`.
pub(super) fn bedrock(walker: &mut Walker<'_>, look: &mut Look<'_>) -> Result<(), ScanError> {
    match walker.peek()? {
        Kind::Array => walker.array(|walker| bedrock(walker, look)),
        Kind::Object => walker.object(|walker, name| match Folded::of(name).as_str() {
            "tools" => bedrock(walker, look),
            // Nova's `nova_grounding` and `nova_code_interpreter`.
            "systemtool" => {
                if anything_but_null(walker)? {
                    look.gathered.tool(Fee::Grounding, None);
                    look.gathered.tool(Fee::CodeExecution, None);
                }
                Ok(())
            }
            _ => look.member(walker, Place::Data, name),
        }),
        _ => walker.pass(),
    }
}

fn anything_but_null(walker: &mut Walker<'_>) -> Result<bool, ScanError> {
    let there = walker.peek()? != Kind::Null;
    walker.pass().map(|()| there)
}
