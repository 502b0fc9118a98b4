//! Owns what tokens look like, and remembers every one that was ever made.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::clock::Clock;

/// Whose tokens they look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Plain,
    /// `sk-ant-oat01-` and `sk-ant-ort01-`, 108 characters.
    Claude,
    /// Access and ID tokens are JWTs that name a ChatGPT account; the refresh token is opaque.
    Codex,
}

/// What one successful request hands out.
#[derive(Clone, Debug)]
pub struct Issued {
    pub access_token: String,
    /// `None` where the client goes on with the one it has, or never gets one.
    pub refresh_token: Option<String>,
    pub id_token: Option<String>,
    pub lifetime: Duration,
    /// Separated by blanks.
    pub scope: String,
}

impl Issued {
    #[track_caller]
    pub fn refresh(&self) -> &str {
        self.refresh_token.as_deref().expect("a refresh token")
    }
}

pub struct Mint {
    pub shape: Shape,
    /// Stands in the clear in every token of this server.
    pub sentinel: String,
    pub account: String,
    pub clock: Arc<Clock>,
    minted: Mutex<Vec<String>>,
}

impl Mint {
    pub fn new(shape: Shape, clock: Arc<Clock>) -> Self {
        Self {
            shape,
            sentinel: format!("REAL{}", random(12)),
            account: uuid(),
            clock,
            minted: Mutex::default(),
        }
    }

    pub fn access(&self, lifetime: Duration) -> String {
        let token = match self.shape {
            Shape::Plain => format!("at-{}{}", self.sentinel, random(40)),
            Shape::Claude => self.claude("sk-ant-oat01-"),
            Shape::Codex => self.jwt(
                lifetime,
                &json!({
                    "aud": ["https://api.openai.com/v1"],
                    "scp": ["openid", "profile", "email", "offline_access"],
                }),
            ),
        };
        self.keep(token)
    }

    pub fn refresh(&self) -> String {
        let token = match self.shape {
            Shape::Plain => format!("rt-{}{}", self.sentinel, random(40)),
            Shape::Claude => self.claude("sk-ant-ort01-"),
            Shape::Codex => format!("rt_{}.{}", self.sentinel, random(43)),
        };
        self.keep(token)
    }

    /// The OpenID Connect ID token, where the provider hands one out.
    pub fn id(&self, client_id: &str, lifetime: Duration) -> Option<String> {
        let claims =
            json!({"aud": [client_id], "email": "dev@example.com", "email_verified": true});
        (self.shape == Shape::Codex).then(|| self.keep(self.jwt(lifetime, &claims)))
    }

    /// A GitHub App installation's token: `ghs_` and 36 letters or digits.
    pub fn installation(&self) -> String {
        self.keep(format!("ghs_{}{}", self.sentinel, random(20)))
    }

    /// Every token ever made, in order.
    pub fn minted(&self) -> Vec<String> {
        self.minted.lock().unwrap().clone()
    }

    fn keep(&self, token: String) -> String {
        self.minted.lock().unwrap().push(token.clone());
        token
    }

    fn claude(&self, prefix: &str) -> String {
        let filling = 93 - self.sentinel.len();
        format!("{prefix}{}{}AA", self.sentinel, random(filling))
    }

    /// A JWT that nobody can verify: its signature is the sentinel and chance.
    fn jwt(&self, lifetime: Duration, more: &Value) -> String {
        let now = self.clock.now();
        let end = now + SignedDuration::try_from(lifetime).unwrap();
        let mut claims = json!({
            "iss": "https://auth.openai.com",
            "sub": format!("auth0|{}", self.account),
            "iat": now.as_second(),
            "exp": end.as_second(),
            "jti": format!("{}{}", self.sentinel, random(8)),
            "https://api.openai.com/auth": {
                "chatgpt_account_id": self.account,
                "chatgpt_plan_type": "pro",
                "chatgpt_user_id": format!("user-{}", self.account),
            },
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "RS256", "kid": "test", "typ": "JWT"});
        let [header, claims] = [header, claims].map(|v| URL_SAFE_NO_PAD.encode(v.to_string()));
        format!("{header}.{claims}.{}{}", self.sentinel, random(326))
    }
}

/// Letters and digits.
pub fn random(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    let letters = bytes.iter().map(|b| ALPHABET[usize::from(*b) % 62]);
    letters.map(char::from).collect()
}

pub fn uuid() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let part = |from: usize, to: usize| hex[from..to].to_owned();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}
