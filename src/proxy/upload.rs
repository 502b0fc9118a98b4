//! Owns the agent's body on its way to the origin: passed on frame by frame, read whole where a
//! credential goes into it, read and dropped where the request is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::account::Accounting;
use super::body::BodyError;
use super::error::ProxyError;
use super::expectation::{Continuation, Wanted};
use super::headers::{announce, clean_trailers};
use crate::inject::body::BodySwap;

/// The agent's body until it is handed on.
pub struct Upload {
    body: Option<Incoming>,
    held_back: bool,
}

/// What the origin gets, and who hears whether it wants it.
pub struct Prepared {
    /// The body.
    pub body: RequestBody,
    /// Set where the agent waits for `100 Continue`.
    pub wanted: Option<Arc<Wanted>>,
}

/// How much of a refused body is read, and for how long: clients that are still sending take a closed
/// connection or a reset stream for the whole answer.
const DISCARD_BYTES: usize = 1 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// Longest silence within a body that is read whole.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Upload {
    /// The body of a request whose head is `head`.
    pub fn new(head: &Parts, body: Incoming) -> Self {
        let held_back = head.headers.contains_key(header::EXPECT);
        Self {
            body: Some(body).filter(|body| !body.is_end_stream()),
            held_back,
        }
    }

    /// Streams the body on, or reads it whole when a credential goes into it.
    pub async fn prepare(
        &mut self,
        head: &mut Parts,
        swap: Option<BodySwap>,
        accounting: &mut Accounting,
    ) -> Result<Prepared, ProxyError> {
        if let (Some(body), Some(swap)) = (&mut self.body, swap) {
            // A body that is read whole here has been asked for here.
            head.headers.remove(header::EXPECT);
            self.held_back = false;
            let whole = whole(body, swap.limit(), &accounting.uploads()).await?;
            let whole = match swap.apply(&whole)? {
                Some(swapped) => {
                    accounting.injected(&swapped.credentials);
                    swapped.bytes
                }
                None => whole,
            };
            self.body = None;
            head.headers
                .insert(header::CONTENT_LENGTH, whole.len().into());
            return Ok(Prepared {
                body: RequestBody::Whole(Some(whole)),
                wanted: None,
            });
        }
        let Some(body) = self.body.take() else {
            return Ok(Prepared {
                body: RequestBody::Empty,
                wanted: None,
            });
        };
        announce(head, body.size_hint().exact());
        let uploads = accounting.uploads();
        if !self.held_back {
            return Ok(Prepared {
                body: RequestBody::Stream(body, uploads),
                wanted: None,
            });
        }
        let wanted = Arc::new(Wanted::default());
        let wait = Continuation::new(wanted.clone());
        Ok(Prepared {
            body: RequestBody::Expecting(body, uploads, wait),
            wanted: Some(wanted),
        })
    }

    /// Reads what is left after a refusal, within bounds. A body that the agent holds back is not asked for.
    pub async fn discard(self) {
        let Some(mut body) = self.body.filter(|_| !self.held_back) else {
            return;
        };
        let reading = async {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > DISCARD_BYTES {
                    return;
                }
            }
        };
        // Whether it ended by itself or by the clock makes no difference to a refused request.
        tokio::time::timeout(DISCARD_TIME, reading).await.ok();
    }
}

async fn whole(body: &mut Incoming, limit: u64, count: &AtomicU64) -> Result<Bytes, ProxyError> {
    let mut whole = BytesMut::new();
    loop {
        // On HTTP/2 nothing below keeps the time of a body.
        let next = tokio::time::timeout(LONGEST_WAIT, body.frame()).await;
        let Some(frame) = next.map_err(|_| ProxyError::AgentBody)? else {
            break;
        };
        let frame = frame.map_err(|_| ProxyError::AgentBody)?;
        let Ok(data) = frame.into_data() else {
            return Err(ProxyError::Malformed(
                "a body that a credential goes into cannot have trailers",
            ));
        };
        count.fetch_add(data.len() as u64, Ordering::Relaxed);
        if (whole.len() + data.len()) as u64 > limit {
            return Err(ProxyError::BodyTooLarge { limit });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// A request's body on its way to the origin.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// One that was read whole.
    Whole(Option<Bytes>),
    /// One that is passed on as it comes.
    Stream(Incoming, Arc<AtomicU64>),
    /// One that the agent holds back until the origin asks for it.
    Expecting(Incoming, Arc<AtomicU64>, Continuation),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Self::Expecting(_, _, wait) = this {
            std::task::ready!(wait.poll(cx))?;
            if let Self::Expecting(inner, count, _) = std::mem::take(this) {
                *this = Self::Stream(inner, count);
            }
        }
        match this {
            Self::Empty | Self::Expecting(..) => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(inner, count) => {
                let mut frame = std::task::ready!(Pin::new(inner).poll_frame(cx));
                if let Some(Ok(frame)) = &mut frame {
                    if let Some(data) = frame.data_ref() {
                        count.fetch_add(data.len() as u64, Ordering::Relaxed);
                    }
                    if let Some(trailers) = frame.trailers_mut() {
                        clean_trailers(trailers);
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(inner, _) | Self::Expecting(inner, ..) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Stream(inner, _) | Self::Expecting(inner, ..) => inner.size_hint(),
        }
    }
}
