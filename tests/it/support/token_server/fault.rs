//! Owns what goes wrong at a provider, and how often.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use serde_json::{Value, json};

use super::super::reply::{self, Reply};

/// The two moments of a token request at which things may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The request is read; nothing is granted or rotated.
    Received,
    /// Tokens are granted, the old refresh token is spent; the answer is not sent.
    Rotated,
}

/// What happens to a token request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Waits before anything else. Any other fault comes on top.
    Latency(Duration),
    /// Answers so, and grants nothing.
    Answer(u16, &'static str, String),
    /// Answers 429 with `Retry-After` in seconds, and grants nothing.
    RateLimit(u32),
    /// Closes the socket.
    Cut(Stage),
    /// Never answers; the socket stays open.
    Silent(Stage),
    /// Grants, and ends the answer in its middle.
    Truncated,
    /// Grants, and blows the answer up to so many bytes. It is still JSON.
    TooLarge(usize),
    /// Grants, and says so in words.
    NotJson,
    /// Grants, and calls the JSON `text/html`.
    WrongContentType,
}

impl Fault {
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer(status, "application/json", body.to_string())
    }

    /// An error answer of RFC 6749, section 5.2.
    pub fn oauth(status: u16, error: &str) -> Self {
        Self::json(status, &json!({"error": error}))
    }

    /// What a load balancer says for a provider that is down.
    pub fn html(status: u16) -> Self {
        let page = format!(
            "<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        );
        Self::Answer(status, "text/html", page)
    }
}

/// The faults that are switched on.
#[derive(Default)]
pub struct Faults(Mutex<Vec<(Fault, Option<usize>)>>);

impl Faults {
    /// For so many requests; without a number until [`Self::heal`].
    pub fn add(&self, fault: Fault, requests: Option<usize>) {
        self.0.lock().unwrap().push((fault, requests));
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The faults that the next request meets.
    pub fn next(&self) -> Trouble {
        let mut all = self.0.lock().unwrap();
        all.retain(|(_, left)| *left != Some(0));
        for (_, left) in all.iter_mut() {
            *left = left.map(|n| n - 1);
        }
        Trouble(all.iter().map(|(fault, _)| fault.clone()).collect())
    }
}

/// What one request meets. `None` stands for a cut connection.
pub struct Trouble(Vec<Fault>);

impl Trouble {
    /// What happens before anything is granted: an answer, or the way on.
    pub async fn before(&self) -> Option<Option<Reply>> {
        for fault in &self.0 {
            match fault {
                Fault::Latency(time) => tokio::time::sleep(*time).await,
                Fault::Answer(status, content_type, body) => {
                    return Some(Some(reply::with_body(*status, content_type, body.clone())));
                }
                Fault::RateLimit(seconds) => {
                    let error =
                        json!({"error": {"type": "rate_limit_error", "message": "Rate limited."}});
                    let answer = reply::json(429, &error);
                    return Some(Some(reply::with(
                        answer,
                        "retry-after",
                        &seconds.to_string(),
                    )));
                }
                Fault::Cut(Stage::Received) => return None,
                Fault::Silent(Stage::Received) => std::future::pending().await,
                _ => {}
            }
        }
        Some(None)
    }

    /// What becomes of the answer of a request that was granted.
    pub async fn after(&self, status: u16, answer: &Value) -> Option<Reply> {
        for fault in &self.0 {
            match fault {
                Fault::Cut(Stage::Rotated) => return None,
                Fault::Silent(Stage::Rotated) => std::future::pending().await,
                Fault::Truncated => return Some(truncated(status, &answer.to_string())),
                Fault::TooLarge(size) => {
                    let mut answer = answer.clone();
                    answer["padding"] = "x".repeat(*size).into();
                    return Some(reply::json(status, &answer));
                }
                Fault::NotJson => {
                    return Some(reply::with_body(status, "application/json", "granted."));
                }
                Fault::WrongContentType => {
                    return Some(reply::with_body(status, "text/html", answer.to_string()));
                }
                _ => {}
            }
        }
        Some(reply::json(status, answer))
    }
}

/// Promises the whole body and sends half of it.
fn truncated(status: u16, body: &str) -> Reply {
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let frames = futures_util::stream::unfold(Some(half), |half| async {
        match half {
            Some(half) => Some((Frame::data(half), None)),
            None => {
                tokio::task::yield_now().await; // lets the half go out before the end is noticed
                None
            }
        }
    });
    let mut answer = reply::status(status);
    *answer.body_mut() = reply::streamed(frames);
    let answer = reply::with(answer, "content-type", "application/json");
    reply::with(answer, "content-length", &body.len().to_string())
}
