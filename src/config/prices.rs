//! Owns prices as written: lists of models by provider, in US dollars per million tokens.
//!
//! ```yaml
//! providers:
//! - provider: anthropic
//!   source: https://platform.claude.com/docs/en/about-claude/pricing
//!   checked: 2026-11-21
//!   fees: {web_search: "0.01"}
//!   models:
//!   - model: claude-sonnet-4-5-20250929
//!     aliases: [claude-sonnet-4-5]
//!     max_input_tokens: 1000000
//!     max_output_tokens: 64000
//!     thinks: when_asked
//!     prices:
//!     - per_million: {input: "3", cache_write_5m: "3.75", cache_read: "0.30", output: "15"}
//!       tiers: [{context_over: 200000, per_million: {input: "6", output: "22.50"}}]
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, de};

use super::decimal::Decimal;
use super::documents::read_as;
use super::error::{ConfigError, SourceFile};
use super::explain::explain;
use super::literal;
use super::load::read_text;
use super::located::Located;
use super::spot;
use super::yaml::{self, Node};
use crate::types::model_api::ModelApi;

/// A price file, parsed but not yet looked through.
#[derive(Clone, Debug)]
pub struct WrittenPrices {
    /// Where it was read from.
    pub file: Arc<SourceFile>,
    /// What it says.
    pub lists: Vec<PriceListSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSpec {
    providers: Vec<PriceListSpec>,
}

/// The prices of one provider's models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceListSpec {
    /// Whose API.
    pub provider: Located<ProviderSpec>,
    /// The provider's page that the prices come from.
    #[serde(default)]
    pub source: Option<String>,
    /// The day on which they were last compared with it.
    #[serde(default)]
    pub checked: Option<Day>,
    /// Service tiers of every model of the list that names none itself.
    #[serde(default)]
    pub service_tiers: BTreeMap<String, ServiceTierSpec>,
    /// Factors of every model of the list that names none itself.
    #[serde(default)]
    pub multipliers: MultipliersSpec,
    /// Fees of every model of the list that names none itself, in US dollars per use.
    #[serde(default)]
    pub fees: BTreeMap<FeeSpec, Decimal<9>>,
    /// The models.
    pub models: Vec<ModelPriceSpec>,
}

/// What one model costs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPriceSpec {
    /// Its name, exactly as requests or answers write it.
    pub model: Located<String>,
    /// Other names of it. `*` stands for every model that is not named, for Ollama only.
    #[serde(default)]
    pub aliases: Vec<Located<String>>,
    /// The page, if it is another than the list's.
    #[serde(default)]
    pub source: Option<String>,
    /// The day, if it is another than the list's.
    #[serde(default)]
    pub checked: Option<Day>,
    /// The most tokens that a prompt may have.
    #[serde(default)]
    pub max_input_tokens: Option<u64>,
    /// The most tokens that an answer may have.
    #[serde(default)]
    pub max_output_tokens: Option<u64>,
    /// Whether it thinks where a request says nothing about it, and shows nothing of that in a stream.
    #[serde(default)]
    pub thinks: ThinksSpec,
    /// Its service tiers, instead of the list's.
    #[serde(default)]
    pub service_tiers: Option<BTreeMap<String, ServiceTierSpec>>,
    /// Its factors, instead of the list's.
    #[serde(default)]
    pub multipliers: Option<MultipliersSpec>,
    /// Its fees, instead of the list's.
    #[serde(default)]
    pub fees: Option<BTreeMap<FeeSpec, Decimal<9>>>,
    /// What it costs, and since when.
    pub prices: Vec<DatedPriceSpec>,
}

/// What a model costs from one moment on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatedPriceSpec {
    /// The moment; always when absent. A request is charged by its start.
    #[serde(default)]
    pub effective_from: Option<Located<Moment>>,
    /// US dollars per million tokens, by class.
    pub per_million: ClassPricesSpec,
    /// Prices of long prompts, which count for the whole request.
    #[serde(default)]
    pub tiers: Vec<TierSpec>,
}

/// Prices of prompts beyond a length.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSpec {
    /// They count where the prompt has more tokens than this, of whatever class.
    pub context_over: Located<u64>,
    /// US dollars per million tokens, by class.
    pub per_million: ClassPricesSpec,
}

/// US dollars per million tokens, by class. A cache that has no price costs what input does, audio
/// what text does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassPricesSpec {
    /// Prompt tokens.
    pub input: Decimal<6>,
    /// Tokens of the answer.
    pub output: Decimal<6>,
    /// Prompt tokens written to a cache for five minutes, or for a time without a name.
    #[serde(default)]
    pub cache_write_5m: Option<Decimal<6>>,
    /// Prompt tokens written to a cache for an hour.
    #[serde(default)]
    pub cache_write_1h: Option<Decimal<6>>,
    /// Prompt tokens read from a cache.
    #[serde(default)]
    pub cache_read: Option<Decimal<6>>,
    /// Audio in the prompt.
    #[serde(default)]
    pub audio_input: Option<Decimal<6>>,
    /// Audio in the answer.
    #[serde(default)]
    pub audio_output: Option<Decimal<6>>,
}

/// What a service tier changes; exactly one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ServiceTierSpec {
    /// Every class costs this many times as much.
    Multiplier(Decimal<4>),
    /// Prices of its own.
    PerMillion(ClassPricesSpec),
}

/// Factors on all classes of tokens, by the word that a request or an answer uses. `*` stands for every
/// word that is not named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultipliersSpec {
    /// By speed (`fast`).
    #[serde(default)]
    pub speed: BTreeMap<String, Decimal<4>>,
    /// By region or geography (`us`).
    #[serde(default)]
    pub geo: BTreeMap<String, Decimal<4>>,
}

/// A provider's word in price files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderSpec {
    /// `api.anthropic.com`.
    Anthropic,
    /// `api.openai.com`.
    OpenAI,
    /// `generativelanguage.googleapis.com`.
    Gemini,
    /// Amazon Bedrock.
    Bedrock,
    /// Vertex AI.
    Vertex,
    /// OpenAI's models on Azure; a name that is not here is looked up among OpenAI's.
    Azure,
    /// Ollama.
    Ollama,
}

impl ProviderSpec {
    /// Its API.
    pub fn api(self) -> ModelApi {
        match self {
            Self::Anthropic => ModelApi::Anthropic,
            Self::OpenAI => ModelApi::OpenAI,
            Self::Gemini => ModelApi::Gemini,
            Self::Bedrock => ModelApi::Bedrock,
            Self::Vertex => ModelApi::Vertex,
            Self::Azure => ModelApi::Azure,
            Self::Ollama => ModelApi::Ollama,
        }
    }
}

/// Whether a model thinks unasked, unseen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThinksSpec {
    /// Only where a request asks for it, or for all to see.
    #[default]
    WhenAsked,
    /// Unless a request turns it off.
    ByDefault,
}

/// A fee's word in price files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeeSpec {
    /// A web search.
    WebSearch,
    /// A search in files.
    FileSearch,
    /// A container for code.
    CodeExecution,
    /// A prompt grounded in search results.
    Grounding,
    /// A search made to ground a prompt.
    GroundedSearch,
}

/// A day (`2026-11-21`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(pub Date);

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let day = text.parse().map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not a day; write for example 2026-11-21"
            ))
        })?;
        Ok(Self(day))
    }
}

/// A moment, or a day, which begins at midnight UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(moment) = text.parse() {
            return Ok(Self(moment));
        }
        let midnight = text
            .parse()
            .ok()
            .and_then(|day: Date| day.to_zoned(jiff::tz::TimeZone::UTC).ok());
        match midnight {
            Some(midnight) => Ok(Self(midnight.timestamp())),
            None => Err(de::Error::custom(format!(
                "`{text}` is not a moment; write for example 2026-11-21 or 2026-11-21T00:00:00Z"
            ))),
        }
    }
}

/// Parses the text of a price file, which a person finds under `name`.
pub fn parse(name: &str, text: &str) -> Result<WrittenPrices, Vec<ConfigError>> {
    let file = Arc::new(SourceFile {
        name: name.to_owned(),
        text: literal::cover(text, &[]),
    });
    let root: Node = yaml::parse(text).map_err(|error| vec![explain(&error, None, &file)])?;
    let spec: FileSpec = read_as(text, &root, &file)?;
    Ok(WrittenPrices {
        file,
        lists: spec.providers,
    })
}

/// The text of the price file at `path`, its lines ended by `\n`.
pub fn text_of(path: &Path) -> Result<String, ConfigError> {
    read_text(path)
}

/// `error` at a value of a price file.
pub fn at<T>(error: ConfigError, file: &Arc<SourceFile>, value: &Located<T>) -> ConfigError {
    spot::at(error, file, value)
}
