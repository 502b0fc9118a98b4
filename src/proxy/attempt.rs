//! Owns one try of a request: credentials go into the head, the body goes on, the origin's head comes back.

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::account::Accounting;
use super::admission::Admission;
use super::error::ProxyError;
use super::headers;
use super::passage::Asked;
use super::snapshot::Snapshot;
use super::spool::Keep;
use super::under_way::Counted;
use super::upload::{Prepared, RequestBody, Upload};
use super::upstream::{Protocols, Upstream};
use crate::inject::error::InjectError;
use crate::inject::injector::InjectedCredential;
use crate::inject::set::{Granted, Injected, Target};
use crate::net::room::{Room, Taken};
use crate::policy::decision::Permit;
use crate::scrub::head::{asks_for_windows, lighten, narrow};
use crate::types::secret::Secret;
use crate::types::window;

/// What every try of a request is made with.
pub struct Attempt<'a> {
    /// Who asks for which origin.
    pub asked: &'a Asked,
    /// What policy allows.
    pub permit: &'a Permit,
    /// The view in which it allows that.
    pub snapshot: &'a Snapshot,
    /// The way to the origin.
    pub upstream: &'a Upstream,
    /// The memory for codings of answers.
    pub windows: &'a Arc<Room>,
    /// The protocols it may be sent in.
    pub protocols: Protocols,
}

/// A request with its secrets in place.
pub struct Ready {
    head: Parts,
    injected: Injected,
}

/// A request that was sent, and the answer's head.
pub struct Sent {
    /// What the origin says.
    pub response: Response<Incoming>,
    /// Counts the request until its answer is over.
    pub counted: Counted,
    /// What went into the request.
    pub credentials: Vec<InjectedCredential>,
    /// The secrets that did.
    pub shown: Shown,
    /// Memory to undo a coding in which such an answer may come.
    pub windows: Option<Taken>,
}

/// Secrets that an origin has seen, each with the placeholder that the agent knows it by.
pub type Shown = Vec<(Arc<Secret>, String)>;

impl Ready {
    /// Whether a secret stands in it, or may come to stand in its body.
    pub fn has_credential(&self) -> bool {
        !self.injected.credentials.is_empty() || self.injected.body.is_some()
    }
}

impl Attempt<'_> {
    /// Puts the secrets where the placeholders stand.
    pub fn inject(&self, mut head: Parts) -> Result<Ready, InjectError> {
        let target = Target {
            authority: &self.asked.authority,
            scheme: self.asked.scheme,
        };
        let granted = Granted {
            applicable: self.permit.credentials(),
            guarding: self.permit.guarding(),
        };
        let injectors = &self.snapshot.injectors;
        let injected = injectors.apply(&self.asked.agent, &target, &granted, &mut head)?;
        Ok(Ready { head, injected })
    }

    /// Sends it, and with it the body, of which `keep` says how much is kept for a second try.
    pub async fn send(
        &self,
        ready: Ready,
        upload: &mut Upload<'_>,
        keep: Option<Keep>,
        admission: &mut Admission,
        accounting: &mut Accounting,
    ) -> Result<Sent, ProxyError> {
        let Ready {
            mut head,
            mut injected,
        } = ready;
        let Prepared {
            body,
            wanted,
            credentials,
            needles,
        } = upload
            .prepare(&mut head, injected.body.take(), keep, accounting)
            .await?;
        injected.credentials.extend(credentials);
        injected.needles.extend(needles);
        let mut windows = None;
        if !injected.needles.is_empty() {
            narrow(&mut head.headers);
            if asks_for_windows(&head.headers) {
                windows = self.windows.taken(window::LARGEST);
                if windows.is_none() {
                    lighten(&mut head.headers);
                }
            }
        }
        accounting.injected(&injected.credentials).await?;
        let body = admission.sending(body, &injected.credentials);
        let mut request = outgoing(self.asked, head, body)?;
        if let Some(wanted) = wanted.clone() {
            hyper::ext::on_informational(&mut request, move |said| {
                if said.status() == StatusCode::CONTINUE {
                    wanted.go_on();
                }
            });
        }
        accounting.sending();
        let uploaded = accounting.uploaded();
        let sent = self
            .upstream
            .send(self.permit, self.protocols, request, uploaded.as_deref());
        let (response, counted) = sent
            .await
            .inspect_err(|error| admission.failed(error))
            .map_err(|error| whose_fault(error, accounting))?;
        accounting.answered(&response, &injected.credentials);
        if let Some(wanted) = wanted {
            wanted.answered();
        }
        Ok(Sent {
            response,
            counted,
            credentials: injected.credentials,
            shown: injected.needles,
            windows,
        })
    }
}

/// By HTTP/2 an upload that ends in the middle resets its stream: that looks as if the origin had failed.
fn whose_fault(error: ProxyError, accounting: &Accounting) -> ProxyError {
    match error {
        ProxyError::Origin { .. } if accounting.upload_broke_off() => ProxyError::AgentBody,
        other => other,
    }
}

/// The request as the origin gets it; `Host` or `:authority` follows from the URI.
fn outgoing(
    asked: &Asked,
    mut head: Parts,
    body: RequestBody,
) -> Result<Request<RequestBody>, ProxyError> {
    let path = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    head.uri = headers::outgoing_uri(asked.scheme, &asked.authority, &path)?;
    head.headers.remove(header::HOST);
    Ok(Request::from_parts(head, body))
}
