//! A transport that answers from a script and keeps what it was sent, for the tests of this floor.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use zeroize::Zeroizing;

use super::asking::Asking;
use super::grant::Grant;
use super::grant_secrets::GrantSecrets;
use super::settings::OAuthSettings;
use super::transport::{TokenRequest, TokenResponse, TokenTransport, TransportError};

type Outcome = Result<TokenResponse, TransportError>;

/// Answers in order; a request beyond the script is a fault of the test.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    answers: Mutex<VecDeque<Outcome>>,
    sent: Mutex<Vec<TokenRequest>>,
}

impl Scripted {
    pub(super) fn new(answers: impl IntoIterator<Item = Outcome>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            sent: Mutex::default(),
        })
    }

    /// What it was sent: URLs and bodies.
    pub(super) fn sent(&self) -> Vec<(String, String)> {
        let sent = self.sent.lock().unwrap();
        let body = |request: &TokenRequest| String::from_utf8(request.body.to_vec()).unwrap();
        sent.iter().map(|r| (r.url.clone(), body(r))).collect()
    }
}

impl TokenTransport for Scripted {
    fn send(&self, request: TokenRequest) -> BoxFuture<'_, Outcome> {
        async move {
            self.sent.lock().unwrap().push(request);
            self.answers.lock().unwrap().pop_front().unwrap()
        }
        .boxed()
    }
}

pub(super) fn settings(yaml: &str) -> OAuthSettings {
    OAuthSettings::resolve(&serde_saphyr::from_str(yaml).unwrap()).unwrap()
}

pub(super) fn asking(yaml: &str, transport: Arc<Scripted>) -> Asking {
    let grant = Grant::new(settings(yaml));
    Asking::new(grant, GrantSecrets::default(), transport)
}

pub(super) fn answer(status: u16, fields: &[(&'static str, &str)], body: &str) -> TokenResponse {
    let fields = fields.iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value).unwrap();
        (HeaderName::from_static(name), value)
    });
    TokenResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::from_iter(fields),
        body: Zeroizing::new(body.as_bytes().to_vec()),
    }
}
