//! Owns the proof that the budgets let a request out, and what becomes of it on the way: sent, refused,
//! sent once more, answered.

use std::sync::atomic::Ordering;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::account::Accounting;
use super::error::ProxyError;
use super::hold::Hold;
use super::metered::Meter;
use super::tranche::Tranche;
use super::upload::RequestBody;
use crate::budget::ledger::Ending;
use crate::inject::injector::InjectedCredential;
use crate::meter::hide_usage::HideUsage;
use crate::meter::reader::{AnswerHead, Memory, Reader};
use crate::meter::reading::Reading;

/// Proof that the budgets let a request out: it is in the books, or none of them counts it.
pub enum Admission {
    /// No budget counts it.
    Uncounted,
    /// It is in the books.
    Counted(Box<Counted>),
}

/// A request that is in the books.
pub struct Counted {
    pub(super) hold: Hold,
    /// How its answer is held to the reservation; nothing where the answer is not read.
    pub(super) tranche: Option<Tranche>,
    /// Usage was asked for where the agent had not.
    pub(super) hides_usage: bool,
    /// The most tokens that the answer was allowed, where those are fewer than were asked for.
    pub(super) lowered: Option<u64>,
}

impl Admission {
    fn hold(&mut self) -> Option<&mut Hold> {
        match self {
            Self::Uncounted => None,
            Self::Counted(counted) => Some(&mut counted.hold),
        }
    }

    /// The body on its way out, noted where it goes: from its first octet on it may cost something.
    pub fn sending(
        &mut self,
        body: RequestBody,
        credentials: &[InjectedCredential],
    ) -> RequestBody {
        let Some(hold) = self.hold() else {
            return body;
        };
        for credential in credentials {
            hold.injected(&credential.name);
        }
        match body {
            RequestBody::Whole(bytes) => RequestBody::Noted(bytes, hold.sent()),
            body => {
                hold.sent().store(true, Ordering::Relaxed);
                body
            }
        }
    }

    /// It failed on its way. What did not reach the origin costs nothing.
    pub fn failed(&mut self, error: &ProxyError) {
        let Some(hold) = self.hold() else {
            return;
        };
        match error {
            ProxyError::Dial(_) => hold.sent().store(false, Ordering::Relaxed),
            _ => hold.origin_broke(),
        }
    }

    /// The origin refused it, and it is sent once more.
    pub async fn retry(&mut self) -> Result<(), ProxyError> {
        let Some(hold) = self.hold() else {
            return Ok(());
        };
        hold.retry().await
    }

    /// The origin's head has come: an error costs nothing, and an answer that is read is watched from here, with what
    /// there is of `memory`.
    pub async fn answered(
        self,
        response: &mut Response<Incoming>,
        memory: Memory<'_>,
        accounting: &mut Accounting,
    ) -> Option<Box<Meter>> {
        let Self::Counted(counted) = self else {
            return None;
        };
        let Counted {
            mut hold,
            tranche,
            hides_usage,
            lowered,
        } = *counted;
        hold.mark(response.headers_mut());
        if let Some(tokens) = lowered {
            let headers = response.headers_mut();
            headers.insert("x-tollgate-max-tokens", tokens.into());
        }
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let is_accepted = upgraded || response.status().is_success();
        let is_read = is_accepted && hold.call().is_some() && tranche.is_some();
        // What is not read is settled here, and still under way.
        if !is_read && (upgraded || !response.body().is_end_stream()) {
            accounting.running(hold.pace());
        }
        if !is_accepted {
            hold.refused().await;
            return None;
        }
        let (Some(call), Some(tranche)) = (hold.call(), tranche) else {
            let nothing = Reading::Exact(Vec::new());
            let (settling, cost) = hold.read(nothing, Ending::Complete);
            accounting.billed(&cost);
            settling.await;
            return None;
        };
        let words = call.operation.words(call.api);
        let reader = Reader::new(
            call,
            &AnswerHead {
                status: response.status(),
                headers: response.headers(),
            },
            memory,
        );
        let hide = (hides_usage && is_events(response)).then(HideUsage::new);
        let meter = Meter::new(hold, reader, tranche, words, response.headers(), hide);
        if is_events(response) {
            // What is hidden or cut makes it another length.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        Some(Box::new(meter))
    }
}

fn is_events(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
