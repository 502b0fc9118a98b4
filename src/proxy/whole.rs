//! Owns the agents' bodies that are read whole before they go on: the memory they take, and the time.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::error::ProxyError;
use super::uploaded::Uploaded;
use crate::net::places::Place;
use crate::net::room::Room;
use crate::net::violation::Violation;
use crate::types::limits::RequestLimits;

/// What a body that is read whole may take.
#[derive(Clone, Copy)]
pub struct Whole<'r> {
    /// Memory, which all of them share,
    pub shared: &'r Arc<Room>,
    /// and who says how much of it this agent may have.
    pub place: &'r Place,
    /// Time.
    pub limits: &'r RequestLimits,
}

/// The longest silences that all of it may take together. Others wait for the room that it has, and an octet now
/// and then is no silence.
const SILENCES: u32 = 10;

impl<'r> Whole<'r> {
    /// The memory for the bodies of its agent.
    pub fn room(&self) -> &'r Arc<Room> {
        self.place.bodies().unwrap_or(self.shared)
    }

    /// Reads all of `body`, of `limit` octets at most, and counts them as they come. What is read has its room
    /// until the last part of it is gone.
    ///
    /// Errors: it is too large, too slow, broken off or has trailers, or there is no room for it.
    pub async fn read<B>(
        self,
        body: &mut B,
        limit: u64,
        count: &Uploaded,
    ) -> Result<Bytes, ProxyError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let idle = self.limits.body_idle;
        let end = Instant::now() + idle.saturating_mul(SILENCES);
        let most = body.size_hint().exact().map_or(limit, |all| all.min(limit));
        let mut whole = Vec::new();
        let room = self.room();
        let mut taken = room.nothing();
        loop {
            // On HTTP/2 nothing below keeps the time of a body.
            let next = timeout_at(end.min(Instant::now() + idle), body.frame()).await;
            let slow = |_| ProxyError::of(Violation::SlowBody, self.limits);
            let Some(frame) = next.map_err(slow)? else {
                break;
            };
            let frame = frame.map_err(|_| ProxyError::AgentBody)?;
            let Ok(data) = frame.into_data() else {
                return Err(ProxyError::Malformed(
                    "a body that a credential goes into cannot have trailers",
                ));
            };
            count.add(data.len());
            let needed = whole.len() + data.len();
            if needed as u64 > limit {
                return Err(ProxyError::BodyTooLarge { limit });
            }
            if needed > whole.capacity() {
                let size = room_for(needed as u64, most);
                if !taken.grow_to(size) {
                    return Err(room.full(taken.missing(size)).into());
                }
                whole.reserve_exact(size as usize - whole.len());
            }
            // Copied also where it is all in one piece: that is a part of the connection's buffer, which
            // would have to be made anew while somebody has it.
            whole.extend_from_slice(&data);
        }
        Ok(taken.with(Bytes::from(whole)))
    }
}

/// The room for a body of which this much has come, and `most` may: as much again, so that it is not copied for
/// each piece. What a head announces costs its sender nothing, and gets no room by that.
fn room_for(come: u64, most: u64) -> u64 {
    (2 * come).min(most).max(come)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use http_body::{Frame, SizeHint};
    use tokio::time::Interval;

    use super::*;
    use crate::net::places::{Bodies, Places};
    use crate::types::limits::Limits;

    /// A body of so many octets that says so, and comes one by one.
    struct Trickle {
        left: u64,
        pace: Interval,
    }

    impl Trickle {
        fn of(octets: u64, pace: Duration) -> Self {
            Self {
                left: octets,
                pace: tokio::time::interval(pace),
            }
        }
    }

    impl Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            ready!(self.pace.poll_tick(cx));
            self.left -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.left)
        }
    }

    async fn read(body: &mut Trickle, room: &Arc<Room>) -> Result<Bytes, ProxyError> {
        let limits = RequestLimits::default();
        let bodies = Bodies {
            room: room.clone(),
            per_agent: room.most(),
        };
        let limits_of_all = Limits::default();
        let (connections, streams) = (limits_of_all.connections, limits_of_all.streams);
        let places = Places::new(connections, streams, bodies);
        let whole = Whole {
            shared: room,
            place: &places.take(Ipv4Addr::LOCALHOST.into(), None).unwrap(),
            limits: &limits,
        };
        whole.read(body, 4 << 20, &Uploaded::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_gets_room_for_what_has_come_and_not_for_what_is_announced() {
        let room = Arc::new(Room::of(1 << 20));
        let mut body = Trickle::of(1 << 20, Duration::from_secs(1));
        let reading = read(&mut body, &room);
        let waited = tokio::time::timeout(Duration::from_secs(5), reading);
        tokio::pin!(waited);
        tokio::select! {
            _ = &mut waited => panic!("it has not come"),
            () = tokio::time::sleep(Duration::from_millis(3500)) => {}
        }
        let taken = room.most() - room.free();
        assert!((4..=8).contains(&taken), "{taken} for 4 octets");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_pauses_for_long_has_its_time_all_the_same() {
        let room = Arc::new(Room::of(1 << 20));
        let idle = RequestLimits::default().body_idle;
        for (octets, pace, fits) in [
            (15, idle / 2, true),
            (1000, idle / 2, false),
            (2, idle * 2, false),
        ] {
            let read = read(&mut Trickle::of(octets, pace), &room).await;
            match read {
                Ok(all) => assert!(fits && all.len() as u64 == octets),
                Err(error) => assert!(!fits && error.reason() == "slow_body", "{error}"),
            }
            assert_eq!(room.free(), room.most());
        }
    }

    #[test]
    fn room_is_made_twice_as_large_each_time_and_never_larger_than_all() {
        for (come, most, room) in [
            (1, 1 << 20, 2),
            (700, 1000, 1000),
            (1000, 1000, 1000),
            (1200, 1000, 1200),
        ] {
            assert_eq!(room_for(come, most), room);
        }
    }
}
