//! Owns reading what a request to a model may cost: one walk through its body, no tree, nothing kept but
//! the answer.
//!
//! What cannot be read, or reads differently at different parsers, is refused; what is not known makes
//! the call dearer, never cheaper.

use std::sync::Arc;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::call::Call;
use super::endpoint::{Operation, model_of_path, overridden};
use super::field::{
    Field, Folded, Seen, anything, field, flag, limit, natural, string, string_if_any,
};
use super::gathered::{Gathered, model_name};
use super::json::{Kind, Walker};
use super::path::name;
use super::scan_error::ScanError;
use super::scan_fields::{self, Slot};
use super::scan_prompt::{Look, Place};
use super::scan_tools;
use crate::types::model_api::ModelApi;
use crate::types::usage::{Fee, Terms};

/// The beta of Anthropic's with which a stream tells how many tokens of thinking it does not show.
const THINKING_COUNT: &str = "thinking-token-count-2026-05-13";

/// Reads a metered request. `path` and `query` are as they stand in the request line; `body` is whole
/// and decoded (see `unpack`).
pub fn read(
    api: ModelApi,
    operation: Operation,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Call, ScanError> {
    check_head(api, query, headers)?;
    let text = text(body)?;
    let mut walker = Walker::new(text);
    let mut scan = Scan::of(operation);
    if walker.peek()? != Kind::Object {
        return Err(ScanError::NotAnObject);
    }
    scan.level(&mut walker, scan_fields::of(operation))?;
    walker.end()?;

    let body_bytes = (body.len() as u64).saturating_add(scan.gathered.beyond_octets());
    let of_path = model_of_path(api, path);
    let mut others = scan.gathered.models;
    let model = match (of_path, scan.model) {
        (Some(of_path), of_body) => {
            others.extend(of_body);
            Box::from(model_name(&of_path)?)
        }
        (None, Some(of_body)) => of_body,
        (None, None) => return Err(ScanError::NoModel),
    };
    others.remove(&model);
    let mut tools: Vec<(Fee, Option<u64>)> = scan.gathered.tools.into_iter().collect();
    for (_, uses) in &mut tools {
        *uses = uses.or(scan.max_tool_calls);
    }
    let unseen = !tells_thinking(operation, headers);
    Ok(Call {
        api,
        operation,
        model: Arc::from(model),
        others: others.into_iter().map(Arc::from).collect(),
        max_output: match makes_no_output(operation) {
            true => Some(0),
            false => scan.max_output,
        },
        answers: scan.answers,
        stream: is_stream(operation, path, scan.stream),
        body_bytes,
        cache: scan.gathered.cache,
        reaches_out: scan.gathered.reaches_out,
        tools,
        terms: terms(api, scan.terms, path, headers),
        asks_for_usage: scan.asks_for_usage,
        thinks_unseen: scan.thinks == Some(true) && unseen || scan.sounds,
        may_think_unseen: scan.thinks.is_none() && unseen,
    })
}

/// The body as text, if it is in the one encoding that JSON has between systems.
fn text(body: &[u8]) -> Result<&str, ScanError> {
    match body {
        [0xEF, 0xBB, 0xBF, ..] => return Err(ScanError::ByteOrderMark),
        // UTF-16 and UTF-32 have zero octets around the first brace.
        [0, ..] | [_, 0, ..] => return Err(ScanError::NotUtf8),
        _ => {}
    }
    str::from_utf8(body).map_err(|_| ScanError::NotUtf8)
}

fn check_head(api: ModelApi, query: Option<&str>, headers: &HeaderMap) -> Result<(), ScanError> {
    if let Some(what) = overridden(query, headers) {
        return Err(ScanError::Overridden(what));
    }
    // Ollama reads JSON whatever it is called, and `curl -d` calls it a form.
    if api != ModelApi::Ollama && !is_json(headers) {
        return Err(ScanError::ContentType);
    }
    if matches!(api, ModelApi::Gemini | ModelApi::Vertex) {
        check_google(query, headers)?;
    }
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let first = match (types.next(), types.next()) {
        (None, _) => return true,
        (Some(first), None) => first.to_str().unwrap_or_default().to_ascii_lowercase(),
        (Some(_), Some(_)) => return false,
    };
    let mut parts = first.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let json = essence == "application/json"
        || essence == "text/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    let utf8 = |part: &str| match part.strip_prefix("charset=") {
        Some(charset) => matches!(charset.trim_matches('"'), "utf-8" | "utf8"),
        None => !part.starts_with("charset"),
    };
    json && parts.all(utf8)
}

/// Google lets a request choose which parts of the answer it gets, and in what form.
fn check_google(query: Option<&str>, headers: &HeaderMap) -> Result<(), ScanError> {
    if headers.contains_key("x-goog-fieldmask") {
        return Err(ScanError::HidesUsage("the field `x-goog-fieldmask`"));
    }
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match &*name(key) {
            "fields" => return Err(ScanError::HidesUsage("the parameter `fields`")),
            "callback" => return Err(ScanError::HidesUsage("the parameter `callback`")),
            "alt" | "$alt" if !matches!(&*name(value), "json" | "sse") => {
                return Err(ScanError::HidesUsage("another `alt` than `json` or `sse`"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn makes_no_output(operation: Operation) -> bool {
    use Operation::{EmbedContent, Embeddings, OllamaEmbed};
    matches!(operation, Embeddings | EmbedContent | OllamaEmbed)
}

fn is_stream(operation: Operation, path: &str, asked: Option<bool>) -> bool {
    match operation {
        Operation::ConverseStream | Operation::InvokeModelStream => true,
        Operation::GenerateContent => path.ends_with(":streamGenerateContent"),
        Operation::RawPredict => path.ends_with(":streamRawPredict") || asked == Some(true),
        Operation::OllamaGenerate => asked != Some(false),
        Operation::Messages | Operation::ChatCompletions | Operation::Responses => {
            asked == Some(true)
        }
        _ => false,
    }
}

/// Terms that stand in fields of the request and in Vertex AI's path.
fn terms(api: ModelApi, mut terms: Terms, path: &str, headers: &HeaderMap) -> Terms {
    let header = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        named(value)
    };
    // What is another API's says nothing: its host does not look at it.
    let (tier, latency) = match api {
        ModelApi::Bedrock => (
            header("x-amzn-bedrock-service-tier"),
            header("x-amzn-bedrock-performanceconfig-latency"),
        ),
        ModelApi::Vertex => (header("x-vertex-ai-llm-shared-request-type"), None),
        _ => (None, None),
    };
    terms.service_tier = terms.service_tier.or(tier);
    terms.speed = terms.speed.or(latency);
    let place = path.split_once("/locations/").map(|(_, rest)| rest);
    let place = place.and_then(|rest| rest.split('/').next());
    terms.geo = terms.geo.or_else(|| place.and_then(named));
    terms
}

/// A term, unless it says what is the standard.
fn named(term: &str) -> Option<Box<str>> {
    let standard = [
        "",
        "standard",
        "standard_only",
        "default",
        "auto",
        "on_demand",
    ];
    let term = term.trim().to_ascii_lowercase();
    (!standard.contains(&&*term)).then(|| term.into())
}

/// Reads a term. Where a body says it in two places, the same one counts in whatever order they stand.
fn term(
    so_far: &mut Option<Box<str>>,
    walker: &mut Walker<'_>,
    field: &'static str,
) -> Result<(), ScanError> {
    let term = string(walker, field)?.and_then(|term| named(&term.said()));
    *so_far = so_far.take().max(term);
    Ok(())
}

/// Whether thinking is asked for: everything but `{"type": "disabled"}` does. Nothing says nothing.
fn thinks(walker: &mut Walker<'_>) -> Result<Option<bool>, ScanError> {
    if walker.peek()? != Kind::Object {
        return Ok(anything(walker)?.then_some(true));
    }
    let (mut off, mut on) = (false, false);
    walker.object(|walker, name| {
        if Folded::of(name).as_str() != "type" {
            return walker.pass::<ScanError>();
        }
        match string_if_any(walker)?.is_some_and(|kind| kind.said() == "disabled") {
            true => off = true,
            false => on = true,
        }
        Ok(())
    })?;
    Ok(Some(on || !off))
}

/// Whether the stream will say how much was thought. What shows of thinking is a summary or nothing, so
/// only Anthropic's own count (`estimated_tokens`), which a beta turns on, tells; other clouds have none.
fn tells_thinking(operation: Operation, headers: &HeaderMap) -> bool {
    let betas = headers.get_all("anthropic-beta").iter();
    let mut betas = betas
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    operation == Operation::Messages && betas.any(|beta| beta.trim() == THINKING_COUNT)
}

/// What has been read of a body so far.
struct Scan {
    model: Option<Box<str>>,
    max_output: Option<u64>,
    answers: u64,
    stream: Option<bool>,
    asks_for_usage: bool,
    /// Whether it says that the model is to think.
    thinks: Option<bool>,
    sounds: bool,
    max_tool_calls: Option<u64>,
    terms: Terms,
    gathered: Gathered,
    picture: u64,
}

impl Scan {
    fn of(operation: Operation) -> Self {
        Self {
            model: None,
            max_output: None,
            answers: 1,
            stream: None,
            asks_for_usage: false,
            thinks: None,
            sounds: false,
            max_tool_calls: None,
            terms: Terms::default(),
            gathered: Gathered::default(),
            // The most tokens that a picture costs: gpt-4o-mini takes 2,833 and 5,667 for each tile;
            // others stay below 5,000.
            picture: match operation {
                Operation::ChatCompletions | Operation::Responses => 50_000,
                _ => 5_000,
            },
        }
    }

    /// Reads an object whose fields are in `table`.
    fn level(
        &mut self,
        walker: &mut Walker<'_>,
        table: &'static [Field<Slot>],
    ) -> Result<(), ScanError> {
        let mut seen = Seen::default();
        walker.object(|walker, name| match field(table, &mut seen, name)? {
            Some((field, slot)) => self.slot(walker, field, slot),
            None => self.look().member(walker, Place::Settings, name),
        })
    }

    fn slot(
        &mut self,
        walker: &mut Walker<'_>,
        field: &'static str,
        slot: Slot,
    ) -> Result<(), ScanError> {
        match slot {
            Slot::Model => {
                let Some(model) = string(walker, field)? else {
                    return Ok(());
                };
                let model = model_name(&model.said())?.into();
                if let Some(other) = self.model.replace(model) {
                    self.gathered.model(&other)?;
                }
            }
            Slot::Models => self.gathered.model_list(walker)?,
            Slot::MaxOutput => self.at_most(natural(walker, field)?),
            Slot::MaxOutputOrNone => self.at_most(limit(walker, field)?),
            Slot::Answers => self.answers = self.answers.max(natural(walker, field)?.unwrap_or(1)),
            Slot::Stream => self.stream = flag(walker, field)?,
            Slot::Background if flag(walker, field)? == Some(true) => {
                return Err(ScanError::Background);
            }
            Slot::Background => {}
            Slot::AsksForUsage => self.asks_for_usage = flag(walker, field)? == Some(true),
            Slot::MaxToolCalls => self.max_tool_calls = natural(walker, field)?,
            Slot::ServiceTier => term(&mut self.terms.service_tier, walker, field)?,
            Slot::Speed => term(&mut self.terms.speed, walker, field)?,
            Slot::Geo => term(&mut self.terms.geo, walker, field)?,
            Slot::Reach => self.gathered.reaches_out |= anything(walker)?,
            Slot::StoredPrompt if anything(walker)? => return Err(ScanError::StoredPrompt),
            Slot::StoredPrompt => {}
            Slot::WebSearch if anything(walker)? => self.gathered.tool(Fee::WebSearch, None),
            Slot::WebSearch => {}
            Slot::Thinking => self.thinks = self.thinks.max(thinks(walker)?),
            Slot::Sound => self.sounds |= anything(walker)?,
            Slot::Prompt => self.look().through(walker, Place::Content)?,
            Slot::Pictures => self.look().pictures(walker)?,
            Slot::Tools => scan_tools::typed(walker, &mut self.look())?,
            Slot::GoogleTools => scan_tools::google(walker, &mut self.look())?,
            Slot::BedrockTools => scan_tools::bedrock(walker, &mut self.look())?,
            Slot::Inside(table) => self.inside(walker, field, table)?,
            Slot::Each(table) => self.each(walker, field, table)?,
            Slot::Data => self.look().through(walker, Place::Data)?,
        }
        Ok(())
    }

    fn inside(
        &mut self,
        walker: &mut Walker<'_>,
        field: &'static str,
        table: &'static [Field<Slot>],
    ) -> Result<(), ScanError> {
        let expected = "an object";
        match walker.peek()? {
            Kind::Null => walker.pass(),
            Kind::Object => self.level(walker, table),
            _ => Err(ScanError::Type { field, expected }),
        }
    }

    fn each(
        &mut self,
        walker: &mut Walker<'_>,
        field: &'static str,
        table: &'static [Field<Slot>],
    ) -> Result<(), ScanError> {
        match walker.peek()? {
            Kind::Array => walker.array(|walker| self.inside(walker, field, table)),
            _ => self.inside(walker, field, table),
        }
    }

    fn at_most(&mut self, limit: Option<u64>) {
        self.max_output = self.max_output.max(limit);
    }

    fn look(&mut self) -> Look<'_> {
        Look {
            gathered: &mut self.gathered,
            picture: self.picture,
        }
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
