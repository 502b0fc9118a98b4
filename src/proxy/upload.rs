//! Owns the agent's body on its way to the origin: passed on frame by frame, read whole where a
//! credential goes into it, read and dropped where the request is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::account::Accounting;
use super::body::BodyError;
use super::error::ProxyError;
use super::expectation::{Continuation, Wanted};
use super::headers::{announce, clean_trailers};
use super::spool::{Keep, Kept, Recall, Rewound, Spool};
use super::uploaded::Uploaded;
use super::whole::Whole;
use crate::inject::body::BodySwap;
use crate::inject::injector::InjectedCredential;
use crate::net::stall::Stall;
use crate::types::secret::Secret;

/// The agent's body until it is handed on, and again if it is asked for a second time.
pub struct Upload<'r> {
    /// What it may take if it is read whole.
    whole: Whole<'r>,
    watched: Watched,
    body: Option<Unsent>,
    held_back: bool,
    sent: Sent,
}

/// Who ends a silence within a body that is passed on as it comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watched {
    /// The gate of its HTTP/1.1 connection.
    Below,
    /// Its own reader, on HTTP/2.
    Here,
    /// Whoever waits for the answer: it may be one side of a conversation, whose silence is no fault.
    Above,
}

/// A body that is to be handed on.
enum Unsent {
    /// As it comes from the agent.
    Agent(Incoming),
    /// For the second time.
    Rewound(Box<Rewound<AgentBody>>),
    /// Read ahead.
    Read(Bytes),
}

/// What is left of a body that was handed on.
enum Sent {
    /// Nothing, since there was none.
    Nothing,
    /// Nothing; it is gone.
    Gone,
    /// All of it, as the agent sent it.
    Whole(Kept),
    /// All of it so far.
    Spooled(Recall<AgentBody>),
}

/// What the origin gets, and who hears whether it wants it.
pub struct Prepared {
    /// The body.
    pub body: RequestBody,
    /// Set where the agent waits for `100 Continue`.
    pub wanted: Option<Arc<Wanted>>,
    /// What went into the body.
    pub credentials: Vec<InjectedCredential>,
    /// The secrets that did, each with its placeholder.
    pub needles: Vec<(Arc<Secret>, String)>,
}

/// How much of a refused body is read, and for how long: clients that are still sending take a closed
/// connection or a reset stream for the whole answer.
const DISCARD_BYTES: usize = 1 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);

impl<'r> Upload<'r> {
    /// The body of a request whose head is `head`.
    pub fn new(head: &Parts, body: Incoming, whole: Whole<'r>) -> Self {
        let held_back = head.headers.contains_key(header::EXPECT);
        let watched = match (head.version, body.size_hint().exact()) {
            (Version::HTTP_2, Some(_)) => Watched::Here,
            (Version::HTTP_2, None) => Watched::Above,
            _ => Watched::Below,
        };
        Self {
            whole,
            watched,
            body: (!body.is_end_stream()).then_some(Unsent::Agent(body)),
            held_back,
            sent: Sent::Nothing,
        }
    }

    /// Streams the body on, or reads it whole when a credential goes into it. What `keep` allows is kept
    /// for [`Upload::rewind`].
    pub async fn prepare(
        &mut self,
        head: &mut Parts,
        swap: Option<BodySwap>,
        keep: Option<Keep>,
        accounting: &mut Accounting,
    ) -> Result<Prepared, ProxyError> {
        if let (Some(body), Some(swap)) = (&mut self.body, swap) {
            // A body that is read whole here has been asked for here.
            head.headers.remove(header::EXPECT);
            self.held_back = false;
            let whole = body.read(swap.limit(), self.whole, accounting).await?;
            self.body = None;
            self.sent = keep.map_or(Sent::Gone, |keep| Sent::kept(&whole, keep));
            let (whole, credentials, needles) = match swap.apply(&whole)? {
                Some(swapped) => {
                    let bytes = self.whole.room().hold(swapped.bytes)?;
                    (bytes, swapped.credentials, swapped.needles)
                }
                None => (whole, Vec::new(), Vec::new()),
            };
            head.headers
                .insert(header::CONTENT_LENGTH, whole.len().into());
            return Ok(Prepared {
                body: RequestBody::Whole(Some(whole)),
                wanted: None,
                credentials,
                needles,
            });
        }
        let Some(body) = self.body.take() else {
            return Ok(Prepared::of(RequestBody::Empty));
        };
        if let Unsent::Read(whole) = body {
            self.sent = keep.map_or(Sent::Gone, |keep| Sent::kept(&whole, keep));
            return Ok(Prepared::of(RequestBody::Whole(Some(whole))));
        }
        let source;
        let idle = self.whole.limits.body_idle;
        (source, self.sent) = body.begin(keep, self.watched, idle, accounting);
        announce(head, source.size_hint().exact());
        if !self.held_back {
            return Ok(Prepared::of(RequestBody::Stream(source)));
        }
        let wanted = Arc::new(Wanted::default());
        let wait = Continuation::new(wanted.clone());
        Ok(Prepared {
            wanted: Some(wanted),
            ..Prepared::of(RequestBody::Expecting(source, wait))
        })
    }

    /// Reads it whole, for an answer that is given here.
    pub async fn read(
        &mut self,
        limit: u64,
        accounting: &mut Accounting,
    ) -> Result<Bytes, ProxyError> {
        self.held_back = false;
        let Some(body) = &mut self.body else {
            return Ok(Bytes::new());
        };
        let whole = body.read(limit, self.whole, accounting).await?;
        self.body = None;
        Ok(whole)
    }

    /// Reads it whole before it is sent, and keeps it to be sent.
    pub async fn read_ahead(
        &mut self,
        head: &mut Parts,
        limit: u64,
        accounting: &mut Accounting,
    ) -> Result<Bytes, ProxyError> {
        head.headers.remove(header::EXPECT);
        let whole = self.read(limit, accounting).await?;
        self.replace(head, whole.clone());
        Ok(whole)
    }

    /// Octets that were made of it, with room for as long as they are needed.
    pub fn hold(&self, octets: Bytes) -> Result<Bytes, ProxyError> {
        Ok(self.whole.room().hold(octets)?)
    }

    /// Sends this instead.
    pub fn replace(&mut self, head: &mut Parts, whole: Bytes) {
        head.headers.remove(header::TRANSFER_ENCODING);
        head.headers
            .insert(header::CONTENT_LENGTH, whole.len().into());
        self.body = Some(Unsent::Read(whole));
    }

    /// Whether all of it could be sent once more.
    pub fn can_rewind(&self) -> bool {
        match &self.sent {
            Sent::Nothing | Sent::Whole(_) => true,
            Sent::Gone => false,
            Sent::Spooled(recall) => recall.is_possible(),
        }
    }

    /// Makes ready to send it once more; the first way gets no more of it. Says whether all of it is there.
    pub fn rewind(&mut self) -> bool {
        let rewound = match std::mem::replace(&mut self.sent, Sent::Gone) {
            Sent::Nothing => return true,
            Sent::Gone => None,
            Sent::Whole(kept) => Some(Rewound::from(kept)),
            Sent::Spooled(recall) => recall.take(),
        };
        self.body = rewound.map(Box::new).map(Unsent::Rewound);
        self.body.is_some()
    }

    /// Reads what is left after a refusal, within bounds. A body that the agent holds back is not asked for.
    pub async fn discard(self) {
        let Some(Unsent::Agent(mut body)) = self.body.filter(|_| !self.held_back) else {
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

impl Prepared {
    fn of(body: RequestBody) -> Self {
        Self {
            body,
            wanted: None,
            credentials: Vec::new(),
            needles: Vec::new(),
        }
    }
}

impl Sent {
    fn kept(whole: &Bytes, keep: Keep) -> Self {
        let mut kept = Kept::new(keep);
        match kept.add(whole) {
            true => Self::Whole(kept),
            false => Self::Gone,
        }
    }
}

impl Unsent {
    async fn read(
        &mut self,
        limit: u64,
        whole: Whole<'_>,
        accounting: &mut Accounting,
    ) -> Result<Bytes, ProxyError> {
        match self {
            Self::Agent(body) => whole.read(body, limit, &accounting.uploads()).await,
            // Its bytes were counted when they came.
            Self::Rewound(body) => whole.read(body, limit, &Uploaded::default()).await,
            Self::Read(body) if body.len() as u64 > limit => {
                Err(ProxyError::BodyTooLarge { limit })
            }
            Self::Read(body) => Ok(body.clone()),
        }
    }

    fn begin(
        self,
        keep: Option<Keep>,
        watched: Watched,
        idle: Duration,
        accounting: &mut Accounting,
    ) -> (Source, Sent) {
        let body = match self {
            Self::Rewound(body) => return (Source::Rewound(*body), Sent::Gone),
            Self::Read(whole) => return (Source::Read(Some(whole)), Sent::Gone),
            Self::Agent(inner) => AgentBody {
                inner,
                uploaded: accounting.uploads(),
                watched,
                silence: (watched == Watched::Here).then(|| (idle, Stall::default())),
            },
        };
        let Some(keep) = keep else {
            return (Source::Agent(body), Sent::Gone);
        };
        let (spool, recall) = Spool::new(body, keep);
        (Source::Spooled(spool), Sent::Spooled(recall))
    }
}

/// The agent's body as it comes: counted, and its trailers cleaned.
pub struct AgentBody {
    inner: Incoming,
    uploaded: Arc<Uploaded>,
    watched: Watched,
    /// How long nothing of it may come, where nobody below keeps that time.
    silence: Option<(Duration, Stall)>,
}

impl AgentBody {
    /// Ready once nothing has come for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.silence {
            Some((idle, stall)) => stall.poll(*idle, cx),
            None => Poll::Pending,
        }
    }
}

impl Body for AgentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(mut frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            if this.watched != Watched::Above {
                this.uploaded.awaits_agent();
            }
            ready!(this.poll_silence(cx));
            this.uploaded.was_slow();
            return Poll::Ready(Some(Err(BodyError::Slow)));
        };
        if let Some((_, stall)) = &mut this.silence {
            stall.moved();
        }
        this.uploaded.handed_on();
        if let Some(Ok(frame)) = &mut frame {
            if let Some(data) = frame.data_ref() {
                this.uploaded.add(data.len());
            }
            if let Some(trailers) = frame.trailers_mut() {
                clean_trailers(trailers);
            }
        }
        if let Some(Err(_)) = &frame {
            this.uploaded.broke_off();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where a streamed body comes from.
pub enum Source {
    /// From the agent.
    Agent(AgentBody),
    /// From the agent, and it is kept.
    Spooled(Arc<Spool<AgentBody>>),
    /// From what was kept, then from the agent.
    Rewound(Rewound<AgentBody>),
    /// From what was read ahead.
    Read(Option<Bytes>),
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Agent(body) => Pin::new(body).poll_frame(cx),
            Self::Spooled(body) => body.poll_frame(cx),
            Self::Rewound(body) => Pin::new(body).poll_frame(cx),
            Self::Read(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Agent(body) => body.is_end_stream(),
            Self::Spooled(body) => body.is_end_stream(),
            Self::Rewound(body) => body.is_end_stream(),
            Self::Read(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Agent(body) => body.size_hint(),
            Self::Spooled(body) => body.size_hint(),
            Self::Rewound(body) => body.size_hint(),
            Self::Read(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
        }
    }
}

/// A request's body on its way to the origin.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// One that was read whole.
    Whole(Option<Bytes>),
    /// The same, and somebody has to know whether it went out.
    Noted(Option<Bytes>, Arc<AtomicBool>),
    /// One that is passed on as it comes.
    Stream(Source),
    /// One that the agent holds back until the origin asks for it.
    Expecting(Source, Continuation),
}

impl RequestBody {
    /// The same again, if all of it is here.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Noted(bytes, sent) => Some(Self::Noted(bytes.clone(), sent.clone())),
            Self::Stream(_) | Self::Expecting(..) => None,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Self::Expecting(_, wait) = this {
            ready!(wait.poll(cx))?;
            if let Self::Expecting(source, _) = std::mem::take(this) {
                *this = Self::Stream(source);
            }
        }
        match this {
            Self::Empty | Self::Expecting(..) => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Noted(bytes, sent) => {
                sent.store(true, Ordering::Relaxed);
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream(source) => source.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) | Self::Noted(bytes, _) => bytes.is_none(),
            Self::Stream(source) | Self::Expecting(source, _) => source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) | Self::Noted(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Stream(source) | Self::Expecting(source, _) => source.size_hint(),
        }
    }
}
