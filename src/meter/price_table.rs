//! Owns the price table: what every known model costs, and which text says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use jiff::civil::Date;

use super::call::Call;
use super::price::{Factors, Price, Rates, Service};
use crate::config::decimal::Decimal;
use crate::config::error::ConfigError;
use crate::config::located::Located;
use crate::config::prices::{
    self, ClassPricesSpec, DatedPriceSpec, FeeSpec, ModelPriceSpec, MultipliersSpec, PriceListSpec,
    ServiceTierSpec, WrittenPrices,
};
use crate::types::map::HashMap;
use crate::types::model_api::ModelApi;
use crate::types::money::NanoUsd;
use crate::types::usage::{Fee, TokenClass};

/// The value of a price file is not possible.
const INVALID_VALUE: &str = "TG0207";

const BUILTIN: &str = include_str!("../../policies/prices.yaml");

/// The name of a model that stands for every other.
const ANY: &str = "*";

/// All names that mean one model.
type Names = Arc<[Arc<str>]>;

/// What every known model costs. Names are compared exactly: a price that was guessed from half a name
/// would be wrong in both directions.
#[derive(Debug)]
pub struct PriceTable {
    models: HashMap<ModelApi, HashMap<Box<str>, Arc<Listed>>>,
    /// All names of each model, by the one that it is listed under.
    names: HashMap<ModelApi, HashMap<Arc<str>, Names>>,
    sha256: [u8; 32],
}

/// One model's prices, the oldest first.
#[derive(Debug)]
struct Listed {
    model: Arc<str>,
    since: Vec<(Timestamp, Arc<Price>)>,
    source: Option<Source>,
}

/// Where a price comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The provider's page.
    pub page: String,
    /// The day on which they were last compared.
    pub checked: Option<Date>,
}

/// A model that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no price is known for the model `{0}` of {api}; list it in the file of `spec.prices.file`",
    api = .1.as_str()
)]
pub struct UnknownModel(pub Arc<str>, pub ModelApi);

/// The table of this process: the built-in one, with the entries of a file in place of its own.
pub fn load(file: Option<&Path>) -> Result<Arc<PriceTable>, Vec<ConfigError>> {
    let Some(path) = file else {
        return Ok(PriceTable::builtin());
    };
    let text = prices::text_of(path).map_err(|error| vec![error])?;
    PriceTable::overridden(&path.display().to_string(), &text).map(Arc::new)
}

impl PriceTable {
    /// The table that comes with the program.
    pub fn builtin() -> Arc<Self> {
        // A test holds it to be without errors. If it had any, every model would be unknown, and refused.
        static TABLE: LazyLock<Arc<PriceTable>> = LazyLock::new(|| {
            let table = PriceTable::parse("<built-in prices>", BUILTIN);
            Arc::new(table.unwrap_or_else(|_| PriceTable::empty()))
        });
        TABLE.clone()
    }

    /// Parses a table on its own, which a person finds under `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let mut table = Self::empty();
        table.add(&prices::parse(name, text)?)?;
        table.gather_names();
        table.sha256 = hash(&[text]);
        Ok(table)
    }

    /// The built-in table with the entries of `text` in place of its own: an entry takes over all names of
    /// the built-in one for the same model, and those that it names itself.
    pub fn overridden(name: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let mut table = Self::parse("<built-in prices>", BUILTIN)?;
        let own = Self::parse(name, text)?;
        for (api, models) in own.models {
            let builtin = table.models.entry(api).or_default();
            for listed in builtin.values_mut() {
                if let Some(instead) = models.get(&*listed.model) {
                    *listed = instead.clone();
                }
            }
            builtin.extend(models);
        }
        table.gather_names();
        table.sha256 = hash(&[BUILTIN, text]);
        Ok(table)
    }

    fn empty() -> Self {
        Self {
            models: HashMap::default(),
            names: HashMap::default(),
            sha256: hash(&[]),
        }
    }

    /// The hash of the text that the prices come from, for the ledger: the built-in one, and the file's
    /// after it.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// What a model costs at a moment; nothing when it is not in the table.
    ///
    /// Azure's deployments are OpenAI's models under names of their own: one that is not listed for Azure
    /// is looked up among OpenAI's. Of Bedrock's ARNs the last part counts
    /// (<https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-use.html>).
    pub fn find(&self, api: ModelApi, model: &str, at: Timestamp) -> Option<&Price> {
        self.listed(api, model)
            .and_then(|listed| listed.at(at))
            .map(|price| &**price)
    }

    /// What a call costs at a moment by the prices of every model that may work on it.
    pub fn for_call(&self, call: &Call, at: Timestamp) -> Result<Arc<Price>, UnknownModel> {
        let priced = |model: &Arc<str>| {
            let listed = self.listed(call.api, model);
            let price = listed.and_then(|listed| listed.at(at)).cloned();
            price.ok_or_else(|| UnknownModel(model.clone(), call.api))
        };
        let asked = priced(&call.model)?;
        if call.others.is_empty() {
            return Ok(asked);
        }
        let beside = call.others.iter().map(priced).collect::<Result<_, _>>()?;
        Ok(Arc::new(Price {
            beside,
            ..(*asked).clone()
        }))
    }

    /// The name that a model is listed under, however a request spells it, and all names that mean it.
    /// Nothing for one that is not listed.
    pub fn names(&self, api: ModelApi, model: &str) -> Option<(Arc<str>, Names)> {
        let (api, listed) = self
            .listed_by(api, model)
            .or_else(|| self.listed_by(api, &model.to_ascii_lowercase()))?;
        if &*listed.model == ANY {
            let bare = api.bare_name(model).to_ascii_lowercase();
            return Some((bare.into(), Arc::default()));
        }
        let names = self.names.get(&api)?.get(&listed.model)?;
        Some((listed.model.clone(), names.clone()))
    }

    /// Every name of a model that is listed under another, and that other.
    pub fn other_names(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let mut others = Vec::new();
        for (api, models) in &self.models {
            for (name, listed) in models {
                let known = [Some(&**name), api.base_name(name)].into_iter().flatten();
                let other = known.filter(|name| **name != *listed.model);
                others.extend(other.map(|name| (Arc::from(name), listed.model.clone())));
            }
        }
        others
    }

    /// Whether a model has a price with any provider.
    pub fn knows(&self, model: &str) -> bool {
        self.models
            .keys()
            .any(|api| self.listed(*api, model).is_some())
    }

    /// Every name, and where its price comes from.
    pub fn sources(&self) -> impl Iterator<Item = (ModelApi, &str, Option<&Source>)> {
        self.models.iter().flat_map(|(api, models)| {
            let names = models.iter();
            names.map(|(name, listed)| (*api, &**name, listed.source.as_ref()))
        })
    }

    fn listed(&self, api: ModelApi, model: &str) -> Option<&Listed> {
        self.listed_by(api, model).map(|(_, listed)| listed)
    }

    /// The same, with the API whose list it stands in.
    fn listed_by(&self, api: ModelApi, model: &str) -> Option<(ModelApi, &Listed)> {
        let model = api.bare_name(model);
        let of = |api: ModelApi, name: &str| {
            let models = self.models.get(&api)?;
            models.get(name).map(|listed| (api, &**listed))
        };
        let found = of(api, model).or_else(|| of(api, ANY));
        match api {
            ModelApi::Azure => found.or_else(|| of(ModelApi::OpenAI, model)),
            _ => found,
        }
    }

    /// Once all models are there.
    fn gather_names(&mut self) {
        let of_api = |models: &HashMap<Box<str>, Arc<Listed>>| {
            let mut names: HashMap<Arc<str>, Vec<Arc<str>>> = HashMap::default();
            for (name, listed) in models {
                let all = names.entry(listed.model.clone()).or_default();
                all.push(Arc::from(&**name));
            }
            let names = names.into_iter();
            names.map(|(model, all)| (model, all.into())).collect()
        };
        let models = self.models.iter();
        self.names = models.map(|(api, models)| (*api, of_api(models))).collect();
    }

    fn add(&mut self, written: &WrittenPrices) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        for list in &written.lists {
            for model in &list.models {
                let said = said_wrong(list, model);
                errors.extend(
                    said.into_iter()
                        .map(|(error, at)| prices::at(error, &written.file, &at)),
                );
                let listed = Arc::new(Listed::new(list, model));
                let models = self.models.entry(list.provider.api()).or_default();
                for name in model.aliases.iter().chain([&model.model]) {
                    let bare = list.provider.api().bare_name(&name.value);
                    if models.insert(bare.into(), listed.clone()).is_some() {
                        let error = ConfigError::new(
                            INVALID_VALUE,
                            format!("`{}` has two prices", name.value),
                        );
                        errors.push(prices::at(error.help("remove one"), &written.file, name));
                    }
                }
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }
}

/// What is wrong with an entry though each of its values is possible, and where.
fn said_wrong(list: &PriceListSpec, model: &ModelPriceSpec) -> Vec<(ConfigError, Located<()>)> {
    let mut wrong = Vec::new();
    let mut say = |message: String, help: &str, line, column| {
        let place = Located {
            value: (),
            line,
            column,
        };
        wrong.push((ConfigError::new(INVALID_VALUE, message).help(help), place));
    };
    for name in model.aliases.iter().chain([&model.model]) {
        if name.contains('*') && (name.value != ANY || list.provider.api() != ModelApi::Ollama) {
            let help = "write each name out; `*` alone stands for all models of `ollama`, and `unknownModel` of a budget for those of others";
            say(
                format!("`{}` is not a model's name", name.value),
                help,
                name.line,
                name.column,
            );
        }
    }
    if model.prices.is_empty() {
        let (line, column) = (model.model.line, model.model.column);
        say(
            format!("`{}` has no price", model.model.value),
            "add one to `prices`",
            line,
            column,
        );
    }
    for (index, dated) in model.prices.iter().enumerate() {
        let before = model.prices[..index].last();
        let since = |dated: &DatedPriceSpec| dated.effective_from.as_ref().map(|from| from.value.0);
        if let Some(before) = before
            && since(before) >= since(dated)
        {
            let at = dated
                .effective_from
                .as_ref()
                .map(|from| (from.line, from.column));
            let (line, column) = at.unwrap_or((model.model.line, model.model.column));
            say(
                "the prices of a model are not in the order of time".into(),
                "put the oldest first, and give each later one its `effective_from`",
                line,
                column,
            );
        }
        for pair in dated.tiers.windows(2) {
            if pair[0].context_over.value >= pair[1].context_over.value {
                let at = &pair[1].context_over;
                say(
                    "the tiers of a price are not in order".into(),
                    "put the one for the shortest prompt first",
                    at.line,
                    at.column,
                );
            }
        }
    }
    wrong
}

impl Listed {
    fn new(list: &PriceListSpec, model: &ModelPriceSpec) -> Self {
        let name: Arc<str> = model.model.value.as_str().into();
        let since = model.prices.iter().map(|dated| {
            let since = dated.effective_from.as_ref();
            let since = since.map_or(Timestamp::MIN, |from| from.value.0);
            (since, Arc::new(price(&name, list, model, dated)))
        });
        let page = model.source.clone().or_else(|| list.source.clone());
        let checked = model.checked.or(list.checked).map(|day| day.0);
        Self {
            since: since.collect(),
            model: name.clone(),
            source: page.map(|page| Source { page, checked }),
        }
    }

    /// The price at a moment. Before the first one counts the first: a model that is used has a price.
    fn at(&self, at: Timestamp) -> Option<&Arc<Price>> {
        let in_force = self.since.iter().rev().find(|(since, _)| *since <= at);
        in_force.or(self.since.first()).map(|(_, price)| price)
    }
}

fn price(
    name: &Arc<str>,
    list: &PriceListSpec,
    model: &ModelPriceSpec,
    dated: &DatedPriceSpec,
) -> Price {
    let services = model.service_tiers.as_ref().unwrap_or(&list.service_tiers);
    let factors: &MultipliersSpec = model.multipliers.as_ref().unwrap_or(&list.multipliers);
    let fees = model.fees.as_ref().unwrap_or(&list.fees);
    let tiers = dated.tiers.iter();
    Price {
        model: name.clone(),
        max_input: model.max_input_tokens,
        max_output: model.max_output_tokens,
        thinks: model.thinks,
        base: rates(&dated.per_million),
        tiers: tiers
            .map(|tier| (tier.context_over.value, rates(&tier.per_million)))
            .collect(),
        services: services
            .iter()
            .map(|(word, tier)| (word.as_str().into(), service(tier)))
            .collect(),
        speeds: words(&factors.speed),
        geos: words(&factors.geo),
        fees: fees
            .iter()
            .map(|(fee, usd)| (kind_of(*fee), NanoUsd(usd.units())))
            .collect(),
        beside: Vec::new(),
    }
}

fn words(factors: &BTreeMap<String, Decimal<4>>) -> Factors {
    let words = factors.iter();
    words
        .map(|(word, factor)| (word.as_str().into(), factor.units()))
        .collect()
}

fn service(tier: &ServiceTierSpec) -> Service {
    match tier {
        ServiceTierSpec::Multiplier(factor) => Service::Factor(factor.units()),
        ServiceTierSpec::PerMillion(classes) => Service::Own(rates(classes)),
    }
}

/// US dollars per million tokens, in units of 10⁻⁶, are pico-dollars per token.
fn rates(classes: &ClassPricesSpec) -> Rates {
    let input = classes.input.units();
    let or = |price: Option<Decimal<6>>, other: u64| price.map_or(other, Decimal::units);
    let write_5m = or(classes.cache_write_5m, input);
    Rates::new(|class| match class {
        TokenClass::Input => input,
        TokenClass::CacheWrite5m => write_5m,
        // A longer life never costs less.
        TokenClass::CacheWrite1h => or(classes.cache_write_1h, input.max(write_5m)),
        TokenClass::CacheRead => or(classes.cache_read, input),
        TokenClass::Output => classes.output.units(),
        TokenClass::AudioInput => or(classes.audio_input, input),
        TokenClass::AudioOutput => or(classes.audio_output, classes.output.units()),
    })
}

fn kind_of(fee: FeeSpec) -> Fee {
    match fee {
        FeeSpec::WebSearch => Fee::WebSearch,
        FeeSpec::FileSearch => Fee::FileSearch,
        FeeSpec::CodeExecution => Fee::CodeExecution,
        FeeSpec::Grounding => Fee::Grounding,
        FeeSpec::GroundedSearch => Fee::GroundedSearch,
    }
}

fn hash(texts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(text.as_bytes());
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(context.finish().as_ref());
    sum
}

#[cfg(test)]
#[path = "price_table_tests.rs"]
mod tests;
