//! Owns what a span says of a call of a model. Where no budget reads the answer it is read here, beside its way
//! and without holding anything: only what it used, never what it says.

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::budget::ledger::Balance;
use crate::meter::call::{CacheUse, Call};
use crate::meter::endpoint::{Endpoint, Operation, classify_request, model_of_path};
use crate::meter::reader::{AnswerHead, Memory, Reader};
use crate::meter::reading::Reading;
use crate::policy::decision::Permit;
use crate::telemetry::redact::SafeText;
use crate::telemetry::span_notes::{BudgetNotes, Certainty, ModelNotes};
use crate::types::model_api::ModelApi;
use crate::types::said::Said;
use crate::types::usage::{ModelUse, Terms, Usage};

/// A call of a model, as far as its head tells.
pub struct Watched(Call);

impl Watched {
    /// The call that a request is, if it is one whose answer can be read.
    pub fn of(permit: &Permit, head: &Parts) -> Option<Self> {
        let api = permit.api()?;
        let (path, query) = (head.uri.path(), head.uri.query());
        let endpoint = classify_request(api, &head.method, path, query, &head.headers);
        let Endpoint::Metered(operation) = endpoint else {
            return None;
        };
        Some(Self(Call {
            api,
            operation,
            model: model_of_path(api, path).unwrap_or_default().into(),
            others: Vec::new(),
            max_output: None,
            answers: 1,
            stream: false,
            body_bytes: 0,
            cache: CacheUse::Unnamed,
            reaches_out: false,
            tools: Vec::new(),
            terms: Terms::default(),
            asks_for_usage: false,
            thinks_unseen: false,
            may_think_unseen: false,
        }))
    }

    /// What is known of it before it is sent.
    pub fn notes(&self) -> ModelNotes {
        notes(self.0.api, self.0.operation, &self.0.model)
    }

    /// Reads the answer with this head, with what there is of `memory`.
    pub fn observer(
        self,
        response: &Response<Incoming>,
        memory: Memory<'_>,
    ) -> Option<Box<Observer>> {
        let head = AnswerHead {
            status: response.status(),
            headers: response.headers(),
        };
        let is_answer = head.status.is_success();
        is_answer.then(|| {
            Box::new(Observer {
                reader: Reader::new(&self.0, &head, memory),
            })
        })
    }
}

/// What a span says of a call before its answer.
pub fn notes(api: ModelApi, operation: Operation, model: &str) -> ModelNotes {
    ModelNotes {
        api,
        operation: name_of(operation),
        asked: (!model.is_empty()).then(|| SafeText::of(model)),
        answered: None,
        usage: None,
        said: Said::default(),
        cost: None,
        certainty: Certainty::Told,
        budget: None,
    }
}

/// Where a budget stands, as a span says it.
pub fn budget_notes(balance: &Balance) -> BudgetNotes {
    let remaining = balance.remaining();
    BudgetNotes {
        name: balance.limit.budget.clone(),
        remaining: balance.limit.unit.show(remaining).to_string(),
        ratio: match balance.max {
            0 => 0.0,
            max => remaining as f64 / max as f64,
        },
    }
}

/// `gen_ai.operation.name`.
fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Messages
        | Operation::RawPredict
        | Operation::ChatCompletions
        | Operation::Responses
        | Operation::Converse
        | Operation::ConverseStream
        | Operation::InvokeModel
        | Operation::InvokeModelStream
        | Operation::OllamaGenerate => "chat",
        Operation::GenerateContent => "generate_content",
        Operation::Embeddings | Operation::EmbedContent | Operation::OllamaEmbed => "embeddings",
    }
}

/// Reads an answer for its usage alone.
pub struct Observer {
    reader: Reader,
}

impl Observer {
    /// The next octets of it.
    pub fn see(&mut self, data: &Bytes) {
        self.reader.feed(data);
    }

    /// What it used, when it is over, however it ended.
    pub fn finish(self, notes: &mut ModelNotes) {
        let (reading, said) = self.reader.conclude();
        notes.said = said;
        let (uses, certainty) = match reading {
            Reading::Exact(uses) => (uses, Certainty::Told),
            Reading::Partial(uses) => (uses, Certainty::Estimated),
            Reading::Unknown { .. } | Reading::Failed => return,
        };
        if uses.is_empty() {
            return;
        }
        let model = uses.iter().find_map(|one| one.model.as_deref());
        notes.answered = model.map(SafeText::of);
        let sum = |all: Usage, one: &ModelUse| all.plus(&one.usage);
        notes.usage = Some(uses.iter().fold(Usage::default(), sum));
        notes.certainty = certainty;
    }
}
