//! Owns `EgressBudget` as written: what agents may spend, in which stretch of time, and what happens then.

use std::fmt;
use std::num::NonZeroU64;

use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};

use super::located::Located;
use super::units::{Number, Pace, Span};
use crate::types::usage::TokenClass;

/// The `spec` of an `EgressBudget`. Every budget that matches a call applies to it: all must have room.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressBudgetSpec {
    /// Which calls it is for, and which are counted together; every agent's calls of model APIs, each
    /// agent by itself, when absent.
    #[serde(default, rename = "match")]
    pub selector: BudgetMatchSpec,
    /// What may be spent. Each limit is kept by itself; a call must fit into all of them.
    #[serde(default)]
    pub limits: Vec<Located<LimitSpec>>,
    /// What happens to a call that does not fit.
    #[serde(default)]
    pub enforcement: EnforcementSpec,
    /// How answers that come in pieces are held to the limits.
    #[serde(default)]
    pub streams: StreamsSpec,
    /// What a call does that would fit once others have settled.
    #[serde(default)]
    pub contention: ContentionSpec,
    /// Whether a call that does not fit is sent with a shorter answer allowed (`max_tokens`); it is refused when
    /// absent. Messages, Chat Completions and Responses only.
    #[serde(default)]
    pub lower_max_tokens: Option<LowerMaxTokensSpec>,
    /// The status of a refusal where a limit is exhausted: 400, 402, 403, 422 or 429. What makes most clients of the
    /// API stop, when absent: 402 for Anthropic's, 400 for Bedrock, 429 for the others.
    #[serde(default)]
    pub exhausted_status: Option<Located<u16>>,
    /// Percentages of a limit at which a warning is given, once for each window; 50, 80, 95 and 100 when absent.
    #[serde(default)]
    pub alerts: Option<Vec<Located<u8>>>,
    /// What happens to a call of a model that has no price. Means something for limits in `usd` only.
    #[serde(default)]
    pub unknown_model: UnknownModelSpec,
    /// What happens while the ledger cannot be written.
    #[serde(default)]
    pub on_store_unavailable: OnStoreUnavailableSpec,
    /// Requests whose use cannot be read, let through at a fixed price. What a limit in `usd` or `tokens`
    /// covers and nothing here names is refused: batches, files, realtime, unknown paths.
    #[serde(default)]
    pub unmetered: Vec<Located<UnmeteredSpec>>,
    /// How many requests may be made in a second, a minute, an hour or a day. Kept in memory.
    #[serde(default)]
    pub rate: Option<Located<RateSpec>>,
    /// How many requests may be under way at once.
    #[serde(default)]
    pub concurrency: Option<Located<u32>>,
}

/// Which calls a budget is for. What is named must all fit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetMatchSpec {
    /// Agents by name, `*` at the end for any rest (`team-a/*`); every agent when absent.
    #[serde(default)]
    pub agents: Vec<Located<String>>,
    /// Models as requests name them, `*` at the end for any rest (`claude-*`); every model when absent.
    /// A request that may use any model, and names none, fits too.
    #[serde(default)]
    pub models: Vec<Located<String>>,
    /// Hosts: exact (`api.anthropic.com`), below a name (`*.example.com`), or an IP address; the hosts of
    /// model APIs when absent. Requests to a host that is named are read, so its TLS is ended here.
    #[serde(default)]
    pub hosts: Vec<Located<String>>,
    /// What is counted apart: each `agent` by itself when absent. `[none]` is one pot for all.
    #[serde(default)]
    pub group_by: Option<Located<Vec<Located<GroupBySpec>>>>,
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GroupBySpec {
    /// Each agent.
    Agent,
    /// The agents of each namespace: the part of an agent's name before `/`.
    Namespace,
    /// Each execution: a Job's pod, a `tollgate run`. Wants `identity.execution` in the configuration.
    Execution,
    /// Each model that is asked for.
    Model,
    /// Nothing: one pot for all. Stands alone.
    None,
}

/// One limit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// What is counted.
    pub unit: UnitSpec,
    /// How much of it: dollars with up to 9 decimals (`"5.00"`), or a whole number.
    pub max: Located<Number>,
    /// The stretch of time that it holds for: `{calendar: day}`, `{fixed: 6h}`, `{rolling: 1h}`, `total`
    /// or `execution`.
    #[schemars(required)]
    pub window: Option<Located<WindowSpec>>,
    /// What a token of each class counts, `1` when absent. For `tokens` only.
    #[serde(default)]
    pub weights: Option<Located<WeightsSpec>>,
    /// Whether what was spent beyond the limit in one window is taken off the next.
    #[serde(default)]
    pub carry_debt: bool,
}

/// Sums of amounts must fit into what SQLite keeps: a signed number of 64 bits.
const MOST: u64 = i64::MAX as u64 / 4;

impl LimitSpec {
    /// The most, in the whole numbers that the ledger keeps: nano-dollars, thousandths of a token, requests.
    pub fn amount(&self) -> Option<u64> {
        let amount = match self.unit {
            UnitSpec::Usd => self.max.value.nano_usd(),
            UnitSpec::Tokens => self.max.value.scaled(0)?.checked_mul(1000),
            UnitSpec::Requests => self.max.value.scaled(0),
        };
        amount.filter(|amount| *amount <= MOST)
    }
}

impl Number {
    /// An amount of US dollars, in nano-dollars.
    pub fn nano_usd(&self) -> Option<u64> {
        self.scaled(9).filter(|amount| *amount <= MOST)
    }

    /// A weight in thousandths, from 0 to 1000.
    pub fn thousandths(&self) -> Option<u32> {
        let value = u32::try_from(self.scaled(3)?).ok();
        value.filter(|value| *value <= 1_000_000)
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UnitSpec {
    /// US dollars, by the price table.
    Usd,
    /// Tokens of prompts and answers.
    Tokens,
    /// Requests, whatever comes of them. A model API's free ones (model lists, token counting) are not.
    Requests,
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PeriodSpec {
    /// Sixty minutes.
    Hour,
    /// From midnight to midnight there: 23 or 25 hours when the clocks change.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

/// The stretch of time that a limit holds for, as it is written. That it is exactly one is checked later,
/// so that the error can show all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowSpec {
    /// `total` or `execution`, or a word that is neither.
    Word(String),
    /// `{calendar: day, tz: Europe/Berlin}`, `{fixed: 6h}`, `{rolling: 1h}`.
    Keys(WindowKeys),
}

impl WindowSpec {
    /// Whether a limit begins anew with each execution.
    pub fn is_execution(&self) -> bool {
        *self == Self::Word("execution".to_owned())
    }
}

/// The keys of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowKeys {
    /// A period of the calendar.
    #[serde(default)]
    pub calendar: Option<PeriodSpec>,
    /// The time zone whose calendar it is, by its IANA name (`Europe/Berlin`); `UTC` when absent.
    #[serde(default)]
    pub tz: Option<Located<String>>,
    /// Stretches of this length, one after the other, counted from 1970-01-01T00:00:00Z.
    #[serde(default)]
    pub fixed: Option<Located<Span>>,
    /// Whatever lies less than this far back, in steps of a sixtieth of it.
    #[serde(default)]
    pub rolling: Option<Located<Span>>,
}

impl WindowKeys {
    /// The calendar's zone. The machine's own has no name that means the same everywhere.
    pub fn zone(&self) -> Option<TimeZone> {
        match self.tz.as_ref().map(|tz| &*tz.value) {
            None => Some(TimeZone::UTC),
            Some("Etc/Unknown") => None,
            Some(name) => TimeZone::get(name).ok(),
        }
    }
}

impl<'de> Deserialize<'de> for WindowSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WindowVisitor)
    }
}

struct WindowVisitor;

impl<'de> Visitor<'de> for WindowVisitor {
    type Value = WindowSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`{calendar: day}`, `{fixed: 6h}`, `{rolling: 1h}`, `total` or `execution`")
    }
    fn visit_str<E: de::Error>(self, word: &str) -> Result<WindowSpec, E> {
        Ok(WindowSpec::Word(word.to_owned()))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WindowSpec, A::Error> {
        WindowKeys::deserialize(MapAccessDeserializer::new(map)).map(WindowSpec::Keys)
    }
}

impl JsonSchema for WindowSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WindowSpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let period = generator.subschema_for::<PeriodSpec>();
        let form = |description: &str, properties: Value, required: &str| {
            json!({
                "description": description,
                "type": "object",
                "properties": properties,
                "required": [required],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": "The stretch of time that a limit holds for.",
            "oneOf": [
                form(
                    "An `hour`, `day`, `week` or `month` of the calendar. `tz` beside it is the zone whose calendar it is, by its IANA name (`Europe/Berlin`); `UTC` when absent. A day is from midnight to midnight there, 23 or 25 hours when the clocks change; a week begins on Monday.",
                    json!({ "calendar": period, "tz": { "type": "string" } }),
                    "calendar",
                ),
                form(
                    "Stretches of this length (`6h`), one after the other, counted from 1970-01-01T00:00:00Z.",
                    json!({ "fixed": { "type": "string" } }),
                    "fixed",
                ),
                form(
                    "Whatever lies less than this far back (`1h`), in steps of a sixtieth of it.",
                    json!({ "rolling": { "type": "string" } }),
                    "rolling",
                ),
                { "description": "All time.", "const": "total" },
                { "description": "One execution of an agent; wants `identity.execution`.", "const": "execution" },
            ],
        })
    }
}

/// What a token of each class counts: a number with up to three decimals.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct WeightsSpec {
    /// Prompt tokens that came from no cache and went into none.
    #[serde(default)]
    pub input: Option<Located<Number>>,
    /// Prompt tokens written to a cache that lives five minutes.
    #[serde(default, rename = "cache_write_5m")]
    pub cache_write_5m: Option<Located<Number>>,
    /// Prompt tokens written to a cache that lives an hour.
    #[serde(default, rename = "cache_write_1h")]
    pub cache_write_1h: Option<Located<Number>>,
    /// Prompt tokens read from a cache.
    #[serde(default)]
    pub cache_read: Option<Located<Number>>,
    /// Tokens of answers, hidden reasoning among them.
    #[serde(default)]
    pub output: Option<Located<Number>>,
    /// Audio in prompts.
    #[serde(default)]
    pub audio_input: Option<Located<Number>>,
    /// Audio in answers.
    #[serde(default)]
    pub audio_output: Option<Located<Number>>,
}

impl WeightsSpec {
    /// The weights in the order of [`TokenClass::ALL`].
    pub fn classes(&self) -> [Option<&Located<Number>>; TokenClass::ALL.len()] {
        let Self {
            input,
            cache_write_5m,
            cache_write_1h,
            cache_read,
            output,
            audio_input,
            audio_output,
        } = self;
        let all = [
            input,
            cache_write_5m,
            cache_write_1h,
            cache_read,
            output,
            audio_input,
            audio_output,
        ];
        all.map(Option::as_ref)
    }
}

/// What happens to a call that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EnforcementSpec {
    /// It is refused.
    #[default]
    Hard,
    /// It passes, is counted, and alerts are given.
    Soft,
}

/// How answers that come in pieces are held to the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamsSpec {
    /// How much is reserved.
    #[serde(default)]
    pub mode: StreamMode,
    /// What happens when more is needed and there is none.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
}

/// How much is reserved for an answer that comes in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StreamMode {
    /// What the prompt is known to cost and a part of the answer, then more as the answer grows.
    #[default]
    Tranche,
    /// The most that the request allows, before it is sent.
    Strict,
}

/// What happens when an answer needs more and there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnExhausted {
    /// The answer ends there with an error that the client understands.
    #[default]
    Cut,
    /// It goes on to its end, and the limit is exceeded by as much.
    Finish,
}

/// What a call does that would fit once others have settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContentionSpec {
    /// How long it waits for that; 20s when absent.
    #[serde(default)]
    pub queue: Option<Span>,
    /// How many calls may wait at once; 64 when absent.
    #[serde(default)]
    pub waiters: Option<u32>,
}

/// How far an answer may be cut down beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LowerMaxTokensSpec {
    /// Tokens that an answer is worth being asked for at all. Never fewer than the request thinks with.
    pub min: NonZeroU64,
}

/// What happens to a call of a model that has no price.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UnknownModelSpec {
    /// It is refused.
    #[default]
    Deny,
    /// It costs what this model of the price table costs.
    PriceAs(Located<String>),
}

/// What happens while the ledger cannot be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnStoreUnavailableSpec {
    /// Calls are refused with 503 and told when to try again.
    #[default]
    Deny,
    /// Calls pass until they have reserved this many US dollars together; the ledger learns of them
    /// when it can be written again.
    AllowUpTo(Located<Number>),
}

/// Requests whose use cannot be read, and what each of them counts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnmeteredSpec {
    /// Methods, in capitals; every method when absent.
    #[serde(default)]
    pub methods: Vec<Located<String>>,
    /// Paths as in a policy's rules: `/v1/files`, `/v1/batches/**`.
    #[serde(default)]
    pub paths: Vec<Located<String>>,
    /// What one costs, in US dollars. Wanted where the budget has a limit in `usd`.
    #[serde(default)]
    pub usd: Option<Located<Number>>,
    /// How many tokens one counts. Wanted where the budget has a limit in `tokens`.
    #[serde(default)]
    pub tokens: Option<u64>,
}

/// How many requests may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateSpec {
    /// How many in which time, spread evenly over it: `5/s`, `60/min`, `1000/h`, `5000/day`.
    pub requests: Pace,
    /// How many may come at once after a pause; 10, or `requests` where that is less, when absent.
    /// In the first period as many more may pass.
    #[serde(default)]
    pub burst: Option<u32>,
}
