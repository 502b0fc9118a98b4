//! Owns memory that all exchanges share: it is taken before it is used, and there is no more than its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::types::limits::{AnswerLimits, BodyLimits};
use crate::types::reached::{Limit, Reached};

/// Memory for one purpose, in octets.
#[derive(Debug)]
pub struct Room {
    most: u64,
    free: AtomicU64,
    /// What it is a part of: what is taken here is taken there as well.
    whole: Option<Arc<Self>>,
}

/// The memory for what is kept of exchanges besides their heads.
#[derive(Debug)]
pub struct Rooms {
    /// For those that may have to be sent again.
    pub kept: Arc<Room>,
    /// For those that must be read whole.
    pub read: Arc<Room>,
    /// For the windows of codings that answers come in.
    pub windows: Arc<Room>,
    /// For pieces of answers that are read for what they used.
    pub answers: Arc<Room>,
}

/// Some of a room, given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    room: Arc<Room>,
    octets: u64,
}

impl Rooms {
    /// Rooms of these sizes.
    pub fn new(bodies: &BodyLimits, answers: &AnswerLimits) -> Self {
        Self {
            kept: Arc::new(Room::of(bodies.kept)),
            read: Arc::new(Room::of(bodies.read)),
            windows: Arc::new(Room::of(answers.windows)),
            answers: Arc::new(Room::of(answers.read)),
        }
    }
}

impl Room {
    /// Room for this many octets.
    pub fn of(octets: u64) -> Self {
        Self {
            most: octets,
            free: AtomicU64::new(octets),
            whole: None,
        }
    }

    /// So much of it, for one of those who share it.
    pub fn share(self: &Arc<Self>, octets: u64) -> Self {
        Self {
            whole: Some(self.clone()),
            ..Self::of(octets)
        }
    }

    /// The octets that are free.
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// The octets there are in all.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Takes octets, all or none; says which.
    pub fn take(&self, octets: u64) -> bool {
        let less = |free: u64| free.checked_sub(octets);
        let taken = self
            .free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if taken.is_err() {
            return false;
        }
        let fits = self.whole.as_ref().is_none_or(|whole| whole.take(octets));
        if !fits {
            self.free.fetch_add(octets, Ordering::Relaxed);
        }
        fits
    }

    /// Gives octets back that were taken.
    pub fn give_back(&self, octets: u64) {
        self.free.fetch_add(octets, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(octets);
        }
    }

    /// Takes octets for as long as the guard lives.
    pub fn taken(self: &Arc<Self>, octets: u64) -> Option<Taken> {
        self.take(octets).then(|| Taken {
            room: self.clone(),
            octets,
        })
    }

    /// Nothing of it yet.
    pub fn nothing(self: &Arc<Self>) -> Taken {
        Taken {
            room: self.clone(),
            octets: 0,
        }
    }

    /// The same octets, which have their room until the last that refers to them is gone.
    pub fn hold(self: &Arc<Self>, octets: Bytes) -> Result<Bytes, Reached> {
        let length = octets.len() as u64;
        let taken = self.taken(length);
        Ok(taken.ok_or_else(|| self.full(length))?.with(octets))
    }

    /// What is said of a body that there are not so many octets more of room for, to read it whole.
    pub fn full(&self, more: u64) -> Reached {
        match &self.whole {
            None => Limit::ReadBodies.bytes(self.most),
            Some(_) if self.free() < more => Limit::AgentReadBodies.bytes(self.most),
            Some(whole) => whole.full(more),
        }
    }
}

impl Taken {
    /// Takes what is missing up to `octets`; says whether there was room for it.
    pub fn grow_to(&mut self, octets: u64) -> bool {
        let missing = self.missing(octets);
        let grown = self.room.take(missing);
        if grown {
            self.octets += missing;
        }
        grown
    }

    /// How much is missing up to `octets`.
    pub fn missing(&self, octets: u64) -> u64 {
        octets.saturating_sub(self.octets)
    }

    /// Gives back what there is beyond `octets`.
    pub fn shrink_to(&mut self, octets: u64) {
        let spare = self.octets.saturating_sub(octets);
        self.octets -= spare;
        self.room.give_back(spare);
    }

    /// `octets`, which have this room until the last that refers to them is gone.
    pub fn with(self, octets: Bytes) -> Bytes {
        Bytes::from_owner(Held {
            octets,
            _taken: self,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.give_back(self.octets);
    }
}

struct Held {
    octets: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_have_their_room_until_the_last_part_of_them_is_gone() {
        let room = Arc::new(Room::of(10));
        let held = room.hold(Bytes::from_static(b"12345678")).unwrap();
        let part = held.slice(6..);
        drop(held);
        assert_eq!((room.free(), &part[..]), (2, &b"78"[..]));
        let full = room.hold(Bytes::from_static(b"123")).unwrap_err();
        assert_eq!(full, Limit::ReadBodies.bytes(10));
        drop(part);
        assert_eq!(room.free(), 10);
    }

    #[test]
    fn what_grows_takes_only_what_is_missing() {
        let room = Arc::new(Room::of(10));
        let mut taken = room.taken(4).unwrap();
        assert!(taken.grow_to(3) && taken.grow_to(8));
        assert_eq!(room.free(), 2);
        assert!(!taken.grow_to(11));
        drop(taken);
        assert_eq!(room.free(), 10);
    }

    #[test]
    fn threads_that_come_together_never_have_more_than_there_is() {
        let room = Arc::new(Room::of(10));
        let held = AtomicU64::new(0);
        let take = || {
            for octets in [4, 3, 5] {
                let Some(mut taken) = room.taken(octets) else {
                    continue;
                };
                let grown = match taken.grow_to(6) {
                    true => 6,
                    false => octets,
                };
                assert!(held.fetch_add(grown, Ordering::SeqCst) + grown <= 10);
                held.fetch_sub(grown, Ordering::SeqCst);
                taken.shrink_to(2);
                drop(taken.with(Bytes::from_static(b"ab")));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(take);
            }
        });
        assert_eq!(room.free(), 10);
    }
}
