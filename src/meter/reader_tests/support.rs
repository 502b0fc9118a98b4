//! Owns what the tests of readers share: calls, answers, and their expected uses.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::meter::call::{CacheUse, Call};
use crate::meter::endpoint::Operation;
use crate::meter::reader::{AnswerHead, Memory, Reader};
use crate::meter::reading::{Progress, Reading};
use crate::net::room::Room;
use crate::types::model_api::ModelApi;
use crate::types::usage::{Fee, ModelUse, Terms, TokenClass, Usage};

pub(super) use crate::types::usage::TokenClass::*;

/// A call that names no terms.
pub(super) fn call(operation: Operation) -> Call {
    Call {
        api: ModelApi::OpenAI,
        operation,
        model: Arc::from("asked-for"),
        others: Vec::new(),
        max_output: None,
        answers: 1,
        stream: true,
        body_bytes: 1000,
        cache: CacheUse::Unnamed,
        reaches_out: false,
        tools: Vec::new(),
        terms: Terms::default(),
        asks_for_usage: false,
        thinks_unseen: false,
        may_think_unseen: false,
    }
}

/// Reads an answer with these headers, in these pieces.
pub(super) fn read_pieces(
    call: &Call,
    headers: &[(&'static str, &str)],
    pieces: &[&[u8]],
) -> (Progress, Reading) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let head = AnswerHead {
        status: StatusCode::OK,
        headers: &map,
    };
    let mut reader = Reader::new(call, &head, Memory::of(&Arc::new(Room::of(u64::MAX))));
    for piece in pieces {
        reader.feed(piece);
    }
    (reader.progress(), reader.finish())
}

/// Reads an answer whole and octet by octet; both must say the same.
pub(super) fn progress_and_reading(call: &Call, answer: impl AsRef<[u8]>) -> (Progress, Reading) {
    let answer = answer.as_ref();
    let whole = read_pieces(call, &[], &[answer]);
    let octets: Vec<&[u8]> = answer.chunks(1).collect();
    assert_eq!(read_pieces(call, &[], &octets), whole, "octet by octet");
    whole
}

pub(super) fn read(call: &Call, answer: impl AsRef<[u8]>) -> Reading {
    progress_and_reading(call, answer).1
}

pub(super) fn usage(counts: &[(TokenClass, u64)]) -> Usage {
    let mut usage = Usage::default();
    for (class, count) in counts {
        usage[*class] = *count;
    }
    usage
}

/// What one model used on standard terms.
pub(super) fn used(model: &str, counts: &[(TokenClass, u64)]) -> ModelUse {
    ModelUse {
        model: (!model.is_empty()).then(|| model.into()),
        usage: usage(counts),
        fees: Vec::new(),
        terms: Terms::default(),
    }
}

pub(super) fn with_fee(mut one: ModelUse, fee: Fee, count: u64) -> ModelUse {
    one.fees.push((fee, count));
    one
}

pub(super) fn on_tier(mut one: ModelUse, tier: &str) -> ModelUse {
    one.terms.service_tier = Some(tier.into());
    one
}

/// A stream of server-sent events whose kind is also in their data, as Anthropic and OpenAI write them.
pub(super) fn events(data: &[&str]) -> String {
    let mut text = String::new();
    for data in data {
        if let Some(kind) = data
            .strip_prefix(r#"{"type":""#)
            .and_then(|rest| rest.split('"').next())
        {
            text.push_str(&format!("event: {kind}\n"));
        }
        text.push_str(&format!("data: {data}\n\n"));
    }
    text
}
