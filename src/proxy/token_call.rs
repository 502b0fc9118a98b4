//! Owns an agent's own call to a token endpoint: read here, answered here with placeholders, and taken to
//! the real endpoint only when a login is wanted. Then its answer stays here as well.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::sync::{OwnedMutexGuard, oneshot};
use zeroize::Zeroizing;

use super::account::{Accounting, TokenCall};
use super::error::ProxyError;
use super::upload::Upload;
use crate::inject::error::{InjectError, Misuse, Position};
use crate::inject::set::{Injectors, Whose};
use crate::oauth::agent_call::{AgentCall, AgentGrant, MOST_BYTES};
use crate::oauth::call_error::CallError;
use crate::oauth::endpoint_error::EndpointError;
use crate::oauth::grant::Moments;
use crate::oauth::local_endpoint::{Decision, LocalEndpoint, LocalGrant, Role, answer, decide};
use crate::oauth::phantom::Phantoms;
use crate::oauth::rewrite;
use crate::oauth::transport::{TokenRequest, TokenResponse};
use crate::rt::drain::Drain;
use crate::types::agent::Agent;

/// What a call is answered with.
pub struct Caller<'a> {
    /// Whether it is made as such calls are made.
    pub form: CallForm,
    /// Who calls.
    pub agent: &'a Agent,
    /// What the agent holds.
    pub injectors: &'a Injectors,
    /// A login that was begun ends even if the agent leaves; the end of the process waits for it.
    pub drain: &'a Drain,
}

/// How a token endpoint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallForm {
    /// With POST, as RFC 6749, section 3.2, has it.
    Post,
    /// With another method. There are endpoints that give tokens all the same.
    Other,
}

/// Answers a call to the first of `endpoints`, or to the one whose placeholder the agent shows: they are
/// one place, of several logins. Whatever comes of it is on record.
pub async fn serve(
    caller: &Caller<'_>,
    endpoints: &[&LocalEndpoint],
    head: &Parts,
    upload: &mut Upload<'_>,
    accounting: &mut Accounting,
) -> Result<Response<Bytes>, ProxyError> {
    let body = match caller.form {
        CallForm::Other => Err(CallError::Malformed("its method is not POST").into()),
        CallForm::Post => match upload.read(MOST_BYTES, accounting).await {
            Err(ProxyError::BodyTooLarge { limit }) => Err(CallError::TooLong(limit).into()),
            read => read,
        },
    };
    let shown = body.as_deref().unwrap_or_default();
    let shown = caller.injectors.whose(caller.agent, shown);
    let meant = |endpoint: &&&LocalEndpoint| {
        let credential = endpoint.grant.owner.credential();
        matches!(&shown, Whose::Own(Some(own)) if own == credential)
    };
    let Some(endpoint) = endpoints.iter().find(meant).or(endpoints.first()) else {
        return Err(ProxyError::Method);
    };
    let call = Call { caller, endpoint };
    let answered = match body {
        Ok(body) => call.answer(head, body).await,
        Err(error) => Err(error),
    };
    let credential = endpoint.grant.owner.credential();
    match answered {
        Ok((outcome, response)) => {
            accounting.token_call(credential, outcome);
            accounting.told(response.status());
            Ok(response)
        }
        Err(error) => {
            accounting.token_call(credential, TokenCall::Refused);
            Err(error)
        }
    }
}

struct Call<'a> {
    caller: &'a Caller<'a>,
    endpoint: &'a LocalEndpoint,
}

impl Call<'_> {
    async fn answer(
        &self,
        head: &Parts,
        body: Bytes,
    ) -> Result<(TokenCall, Response<Bytes>), ProxyError> {
        let query = head.uri.query();
        if self.endpoint.role == Role::Revocation {
            let values = AgentCall::read_values(&head.headers, query, &body)?;
            self.refuse_strangers(&values, "/token")?;
            return Ok((TokenCall::Revocation, json(StatusCode::OK, "{}")));
        }
        let call = AgentCall::read(&head.headers, query, &body)?;
        let position = match call.grant {
            AgentGrant::Login => "/code",
            AgentGrant::Refresh | AgentGrant::Other => "/refresh_token",
        };
        self.refuse_strangers(call.values(), position)?;
        let phantoms = self.phantoms()?;
        if self.decide(&call)? == Decision::Answer {
            return Ok(self.placeholders(&call, &phantoms));
        }
        self.refuse_placeholders(&body, &call, position)?;
        // Held until the login is stored, which may be after the agent has left.
        let alone = self.endpoint.grant.capture.clone().lock_owned().await;
        if self.decide(&call)? == Decision::Answer {
            // Another call has brought the login meanwhile.
            return Ok(self.placeholders(&call, &phantoms));
        }
        let request = TokenRequest {
            url: self.endpoint.address.to_string(),
            headers: passed_on(&head.headers),
            body: Zeroizing::new(body.to_vec()),
        };
        Ok(self.capture(request, phantoms, alone).await?)
    }

    fn decide(&self, call: &AgentCall) -> Result<Decision, CallError> {
        let grant = &self.endpoint.grant;
        let login = grant.asking.grant().settings().agent_login;
        let standing = grant.owner.standing();
        decide(call.grant, standing, login, grant.owner.credential())
    }

    fn phantoms(&self) -> Result<Phantoms, CallError> {
        let credential = self.endpoint.grant.owner.credential();
        let Caller {
            agent, injectors, ..
        } = self.caller;
        let phantoms = injectors.phantoms(agent, credential);
        // A credential whose grant has no refresh token has no login either.
        phantoms.ok_or_else(|| CallError::Unsupported(credential.clone()))
    }

    fn placeholders(&self, call: &AgentCall, phantoms: &Phantoms) -> (TokenCall, Response<Bytes>) {
        let grant = &self.endpoint.grant;
        let settings = grant.asking.grant().settings();
        let about = grant.owner.about();
        let text = answer(call, &about, phantoms, settings.client, &settings.scopes);
        let outcome = match call.grant {
            AgentGrant::Login => TokenCall::Login,
            AgentGrant::Refresh | AgentGrant::Other => TokenCall::Refresh,
        };
        (outcome, json(StatusCode::OK, text))
    }

    fn whose(&self, text: &[u8]) -> Whose {
        self.caller.injectors.whose(self.caller.agent, text)
    }

    /// Another agent's placeholder is a stolen one, in whichever parameter it stands.
    fn refuse_strangers(
        &self,
        values: &[Zeroizing<String>],
        position: &str,
    ) -> Result<(), ProxyError> {
        let whose = |value: &Zeroizing<String>| self.whose(value.as_bytes());
        match values.iter().any(|value| whose(value) == Whose::Stranger) {
            true => Err(canary(None, position, Misuse::Stranger)),
            false => Ok(()),
        }
    }

    /// No placeholder leaves for the real endpoint.
    fn refuse_placeholders(
        &self,
        body: &[u8],
        call: &AgentCall,
        position: &str,
    ) -> Result<(), ProxyError> {
        let values = call.values().iter().map(|value| value.as_bytes());
        for text in values.chain([body]) {
            if let Whose::Own(credential) = self.whose(text) {
                return Err(canary(credential, position, Misuse::Misplaced));
            }
        }
        Ok(())
    }

    /// Takes a login to the real endpoint, in a task that does not end when the agent leaves.
    async fn capture(
        &self,
        request: TokenRequest,
        phantoms: Phantoms,
        alone: OwnedMutexGuard<()>,
    ) -> Result<(TokenCall, Response<Bytes>), CallError> {
        let (done, outcome) = oneshot::channel();
        let grant = self.endpoint.grant.clone();
        self.caller.drain.spawn(async move {
            let captured = capture(&grant, request, &phantoms).await;
            drop(alone);
            // The agent may have left.
            done.send(captured).ok();
        });
        let cut = |_| CallError::Unanswered("the proxy is shutting down".to_owned());
        outcome.await.map_err(cut)?
    }
}

async fn capture(
    grant: &Arc<LocalGrant>,
    request: TokenRequest,
    phantoms: &Phantoms,
) -> Result<(TokenCall, Response<Bytes>), CallError> {
    let sent = SystemTime::now();
    let answer = grant.transport.send(request).await;
    let answered = SystemTime::now();
    let answer = answer.map_err(|error| CallError::Unanswered(error.to_string()))?;
    let TokenResponse {
        status,
        headers,
        body,
    } = answer;
    let read = TokenResponse {
        status,
        headers: headers.clone(),
        body: body.clone(),
    };
    let moments = Moments { sent, answered };
    let tokens = match grant.asking.grant().answer(Ok(read), None, moments) {
        Ok(tokens) => tokens,
        // What cannot be read may hold tokens all the same.
        Err(error @ (EndpointError::Unanswered(_) | EndpointError::Unreachable(_))) => {
            return Err(CallError::Unanswered(error.to_string()));
        }
        Err(_) => return declined(status, &headers, &body),
    };
    let told = rewrite::tokens(&body, &tokens, phantoms);
    let kept = grant.owner.adopt(tokens).await;
    kept.map_err(|error| CallError::NotKept {
        credential: grant.owner.credential().clone(),
        why: error.to_string(),
    })?;
    told.map(|told| (TokenCall::Captured, json(status, told)))
}

/// The endpoint's own error, for the client that waits for it (`authorization_pending`, a bad code).
fn declined(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(TokenCall, Response<Bytes>), CallError> {
    let mut response = json(status, rewrite::error(body)?);
    let seconds = |value: &&HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    if let Some(after) = headers.get(RETRY_AFTER).filter(seconds) {
        response.headers_mut().insert(RETRY_AFTER, after.clone());
    }
    Ok((TokenCall::Declined, response))
}

fn canary(credential: Option<Arc<str>>, position: &str, misuse: Misuse) -> ProxyError {
    ProxyError::from(InjectError::Canary {
        credential,
        position: Position::Body(position.into()),
        misuse,
    })
}

/// What the real endpoint gets of an agent's head.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let kept = [CONTENT_TYPE, USER_AGENT].into_iter();
    kept.filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
        .collect()
}

/// RFC 6749, section 5.1: what holds tokens, or seems to, is never cached.
fn json(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
