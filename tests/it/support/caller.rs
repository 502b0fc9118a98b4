//! Owns a client that knows nothing of OAuth and sends what it is told, and the scene it acts in.

use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::door::Relay;
use super::origin::Origin;
use super::recorded::fields;
use super::token_server::api::ProtectedApi;
use super::token_server::mint::Issued;
use super::token_server::server::{TokenServer, token_server};
use super::token_server::settings::TokenServerBuilder;
use super::wire::Answer;
use super::{reply, tunnel};

pub const FORM: &str = "application/x-www-form-urlencoded";
pub const JSON: &str = "application/json";

/// A client without any knowledge of OAuth.
pub struct Caller {
    pub relay: Relay,
    pub host: String,
}

impl Caller {
    pub async fn of(origin: &Origin) -> Self {
        Self {
            relay: Relay::to(&[origin]).await,
            host: origin.names[0].clone(),
        }
    }

    /// One request on a connection of its own; an error where no whole answer comes.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(reply::full(body.to_owned())).unwrap();
        let mut sender = tunnel::http1(&self.relay.door(), &self.host).await;
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            phrase: String::new(),
            headers: fields(&head.headers),
            body: body.collect().await?.to_bytes().to_vec(),
        })
    }

    pub async fn post(&self, content_type: &str, body: &str) -> Result<Answer, hyper::Error> {
        let headers = [("content-type", content_type)];
        self.send("POST", "/oauth/token", &headers, body).await
    }

    pub async fn refresh(&self, token: &str) -> Result<Answer, hyper::Error> {
        self.post(FORM, &refresh_form(token)).await
    }

    pub async fn get(&self, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        self.send("GET", "/v1/models", &headers, "").await.unwrap()
    }
}

pub fn refresh_form(token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={token}&client_id=client-1")
}

pub fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.text()))
}

#[track_caller]
pub fn refused(answer: Result<Answer, hyper::Error>, status: u16, error: &str) {
    let answer = answer.unwrap();
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(json_of(&answer)["error"], error, "{}", answer.text());
}

/// A server, a client of it, an API behind it, and one login.
pub struct Scene {
    pub server: TokenServer,
    pub client: Caller,
    pub api: ProtectedApi,
    pub visitor: Caller,
    pub login: Issued,
}

impl Scene {
    pub async fn of(builder: TokenServerBuilder) -> Self {
        let server = builder.start().await;
        let api = server.protected_api(&["api.example.com"]).await;
        Self {
            client: Caller::of(&server.origin).await,
            visitor: Caller::of(&api.origin).await,
            login: server.login(),
            server,
            api,
        }
    }

    pub async fn plain() -> Self {
        Self::of(token_server()).await
    }

    /// One honest refresh with the token that is live.
    pub async fn still_serves(&self) -> Value {
        let token = self.server.truth().refresh_token().to_owned();
        let answer = self.client.refresh(&token).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        json_of(&answer)
    }
}
