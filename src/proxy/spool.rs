//! Owns what has been read of an agent's body while it may have to be sent a second time: kept within
//! bounds on its way to the origin, and put before the rest where it is asked for again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::BodyError;
use crate::net::room::Room;

/// How much of one body is kept.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The most octets; a longer body is passed on and not kept.
    pub limit: u64,
    /// What it takes its memory from.
    pub room: Arc<Room>,
}

/// The beginning of a body.
#[derive(Debug)]
pub struct Kept {
    pieces: VecDeque<Bytes>,
    /// Small pieces, gathered.
    tail: BytesMut,
    trailers: Option<HeaderMap>,
    length: u64,
    keep: Keep,
}

/// Pieces from this size on are kept as they came. A smaller one may be all that keeps a whole read
/// buffer in memory, so it is copied.
const LARGE: usize = 16 << 10;

impl Kept {
    /// Nothing yet.
    pub fn new(keep: Keep) -> Self {
        Self {
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            trailers: None,
            length: 0,
            keep,
        }
    }

    /// Keeps one more piece; says whether there was room for it.
    pub fn add(&mut self, data: &Bytes) -> bool {
        let length = data.len() as u64;
        if self.length + length > self.keep.limit || !self.keep.room.take(length) {
            return false;
        }
        self.length += length;
        if self.tail.len() + data.len() > LARGE {
            self.gather();
        }
        match data.len() >= LARGE {
            true => self.pieces.push_back(data.clone()),
            false => self.tail.extend_from_slice(data),
        }
        true
    }

    fn note(&mut self, frame: &Frame<Bytes>) -> bool {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        frame.data_ref().is_none_or(|data| self.add(data))
    }

    fn gather(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front().or_else(|| {
            self.gather();
            self.pieces.pop_front()
        })?;
        let length = piece.len() as u64;
        self.length -= length;
        self.keep.room.give_back(length);
        Some(piece)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keep.room.give_back(self.length);
    }
}

/// A body that is passed on and kept. The one who passes it on and the one who may ask for it again
/// share it.
#[derive(Debug)]
pub struct Spool<B>(Mutex<State<B>>);

#[derive(Debug)]
struct State<B> {
    /// What the agent has still to send; nothing once all of it has come.
    rest: Option<B>,
    /// Nothing once there was no room, or no second try can come.
    kept: Option<Kept>,
    /// The rest was taken away from whoever was passing it on.
    recalled: bool,
    passing: Option<Waker>,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Spool<B> {
    /// Passes `body` on and keeps it; the second handle can call it back.
    pub fn new(body: B, keep: Keep) -> (Arc<Self>, Recall<B>) {
        // One that is known to be too long need not be kept up to there.
        let fits = body.size_hint().lower() <= keep.limit;
        let spool = Arc::new(Self(Mutex::new(State {
            rest: Some(body),
            kept: fits.then(|| Kept::new(keep)),
            recalled: false,
            passing: None,
        })));
        (spool.clone(), Recall(spool))
    }

    /// The next frame on its way to the origin.
    pub fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(body) = &mut state.rest else {
            let not_wanted = state.recalled.then_some(Err(BodyError::NotWanted));
            return Poll::Ready(not_wanted);
        };
        let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(cx) else {
            state.passing = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let kept = match &next {
            Some(Ok(frame)) => state.kept.as_mut().is_none_or(|kept| kept.note(frame)),
            Some(Err(_)) => false,
            None => true,
        };
        if !kept {
            state.kept = None;
        }
        if next.is_none() || body.is_end_stream() {
            state.rest = None;
        }
        Poll::Ready(next)
    }

    /// Whether nothing follows.
    pub fn is_end_stream(&self) -> bool {
        let state = self.state();
        match &state.rest {
            Some(rest) => rest.is_end_stream(),
            None => !state.recalled,
        }
    }

    /// What is known of the length of what follows.
    pub fn size_hint(&self) -> SizeHint {
        let state = self.state();
        let rest = state.rest.as_ref().map(Body::size_hint);
        rest.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl<B> Spool<B> {
    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have a body from its beginning again. Without it nothing is kept any longer.
#[derive(Debug)]
pub struct Recall<B>(Arc<Spool<B>>);

impl<B> Recall<B> {
    /// Whether all of it is there so far.
    pub fn is_possible(&self) -> bool {
        self.0.state().kept.is_some()
    }

    /// The body from its beginning, if all of it is there. Whoever was passing it on gets no more of it.
    pub fn take(self) -> Option<Rewound<B>> {
        let mut state = self.0.state();
        let kept = state.kept.take()?;
        let rest = state.rest.take();
        state.recalled = rest.is_some();
        if let Some(passing) = state.passing.take() {
            passing.wake();
        }
        drop(state);
        Some(Rewound { kept, rest })
    }
}

impl<B> Drop for Recall<B> {
    fn drop(&mut self) {
        self.0.state().kept = None;
    }
}

/// A body from its beginning: what was kept of it, then what the agent has still to send.
#[derive(Debug)]
pub struct Rewound<B> {
    kept: Kept,
    rest: Option<B>,
}

impl<B> From<Kept> for Rewound<B> {
    fn from(kept: Kept) -> Self {
        Self { kept, rest: None }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Rewound<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(piece) = this.kept.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut this.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => {
                let trailers = this.kept.trailers.take();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let sent = self.kept.length == 0 && self.kept.trailers.is_none();
        sent && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map(Body::size_hint);
        let rest = rest.unwrap_or_else(|| SizeHint::with_exact(0));
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + self.kept.length);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + self.kept.length);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::BodyExt;
    use http_body_util::channel::{Channel, Sender};

    use super::*;

    type TestBody = Channel<Bytes, BodyError>;

    fn keep(limit: u64, room: &Arc<Room>) -> Keep {
        Keep {
            limit,
            room: room.clone(),
        }
    }

    fn pieces(sizes: &[usize]) -> Vec<Bytes> {
        let letters = b'a'..;
        let sized = letters.zip(sizes);
        sized
            .map(|(letter, size)| vec![letter; *size].into())
            .collect()
    }

    async fn give(to: &mut Sender<Bytes, BodyError>, pieces: &[Bytes]) {
        for piece in pieces {
            to.send_data(piece.clone()).await.unwrap();
        }
    }

    /// Passes on what is there, as a connection does; `None` where it must wait.
    fn pass(spool: &Spool<TestBody>) -> Option<Option<Result<Frame<Bytes>, BodyError>>> {
        match spool.poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        }
    }

    fn pass_all(spool: &Spool<TestBody>) -> Vec<u8> {
        let mut passed = Vec::new();
        while let Some(Some(Ok(frame))) = pass(spool) {
            passed.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        passed
    }

    #[tokio::test]
    async fn a_body_is_passed_on_and_can_be_had_again_byte_for_byte() {
        for sizes in [
            &[][..],
            &[1],
            &[1, 2, 3],
            &[LARGE - 1, 1, LARGE, 1, LARGE + 1],
            &[LARGE / 2 + 1, LARGE / 2 + 1, 7],
            &[0, 5, 0],
        ] {
            let room = Arc::new(Room::of(1 << 20));
            let (mut agent, body) = TestBody::new(16);
            let (spool, recall) = Spool::new(body, keep(1 << 20, &room));
            let pieces = pieces(sizes);
            give(&mut agent, &pieces).await;
            let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
            agent.send_trailers(trailers.clone()).await.unwrap();
            drop(agent);
            assert_eq!(pass_all(&spool), pieces.concat(), "{sizes:?}");
            assert!(spool.is_end_stream());
            let rewound = recall.take().unwrap();
            let length = pieces.concat().len() as u64;
            assert_eq!(rewound.size_hint().exact(), Some(length));
            let again = rewound.collect().await.unwrap();
            assert_eq!(again.trailers(), Some(&trailers));
            assert_eq!(again.to_bytes(), pieces.concat(), "{sizes:?}");
            assert_eq!(room.free(), 1 << 20, "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_was_called_back_half_way_goes_on_in_its_second_life_only() {
        let room = Arc::new(Room::of(1 << 20));
        let (mut agent, body) = TestBody::new(16);
        let (spool, recall) = Spool::new(body, keep(100, &room));
        give(&mut agent, &pieces(&[10])).await;
        assert_eq!(pass_all(&spool).len(), 10);
        assert!(pass(&spool).is_none(), "it waits for the agent");
        let rewound = recall.take().unwrap();
        assert!(matches!(
            pass(&spool),
            Some(Some(Err(BodyError::NotWanted)))
        ));
        assert!(!spool.is_end_stream(), "cut short is not complete");
        give(&mut agent, &pieces(&[0, 200])).await;
        drop(agent);
        let again = rewound.collect().await.unwrap().to_bytes();
        assert_eq!(again, [vec![b'a'; 10], vec![b'b'; 200]].concat());
    }

    #[tokio::test]
    async fn past_a_bound_a_body_is_passed_on_and_not_kept() {
        let room = Arc::new(Room::of(100));
        for (limit, size, possible) in [(50, 50, true), (50, 51, false), (200, 101, false)] {
            let (mut agent, body) = TestBody::new(16);
            let (spool, recall) = Spool::new(body, keep(limit, &room));
            give(&mut agent, &pieces(&[size / 2, size - size / 2])).await;
            drop(agent);
            assert_eq!(pass_all(&spool).len(), size);
            assert_eq!(recall.is_possible(), possible, "{size} of {limit}");
            assert_eq!(recall.take().is_some(), possible);
            assert_eq!(room.free(), 100, "nothing stays taken");
        }
    }

    #[tokio::test]
    async fn two_bodies_share_the_room() {
        let room = Arc::new(Room::of(100));
        let one = async |size: usize| {
            let (mut agent, body) = TestBody::new(16);
            let (spool, recall) = Spool::new(body, keep(100, &room));
            give(&mut agent, &pieces(&[size])).await;
            assert_eq!(pass_all(&spool).len(), size);
            (agent, recall)
        };
        let (_first, kept) = one(60).await;
        let (_second, not_kept) = one(60).await;
        assert!(kept.is_possible() && !not_kept.is_possible());
        drop(kept);
        assert_eq!(room.free(), 100, "an answered request needs no copy");
        assert!(one(60).await.1.is_possible());
    }

    #[tokio::test]
    async fn a_body_that_broke_off_is_not_had_again() {
        let room = Arc::new(Room::of(1 << 20));
        let (mut agent, body) = TestBody::new(16);
        let (spool, recall) = Spool::new(body, keep(100, &room));
        give(&mut agent, &pieces(&[10])).await;
        agent.abort(BodyError::Idle);
        while let Some(Some(Ok(_))) = pass(&spool) {}
        assert!(!recall.is_possible());
    }
}
