//! Owns the octets of a piece of an answer that has not ended: a few in the exchange's own memory, more in the room that
//! all exchanges share.

use std::ops::Deref;
use std::sync::Arc;

use super::answer::MAX_PIECE;
use crate::net::room::{Room, Taken};

/// So many octets are in no room; `types/limits` counts them with the exchange.
pub(super) const OWN: usize = 64 << 10;

/// Octets that are kept until their piece ends.
#[derive(Debug)]
pub(super) struct Kept {
    octets: Vec<u8>,
    room: Arc<Room>,
    taken: Option<Taken>,
}

impl Kept {
    /// None yet; beyond [`OWN`] they will take their place in `room`.
    pub(super) fn within(room: &Arc<Room>) -> Self {
        Self {
            octets: Vec::new(),
            room: room.clone(),
            taken: None,
        }
    }

    /// Keeps a part more; false if that is more than [`MAX_PIECE`], or than there is room for.
    #[must_use]
    pub(super) fn extend(&mut self, part: &[u8]) -> bool {
        let length = self.octets.len().saturating_add(part.len());
        if length > OWN && !self.grow_to(length) {
            return false;
        }
        self.octets.extend_from_slice(part);
        true
    }

    /// Keeps nothing any more.
    pub(super) fn clear(&mut self) {
        self.octets.clear();
        // One large piece does not hold its memory for the rest of the answer.
        if self.taken.take().is_some() {
            self.octets.shrink_to(OWN);
        }
    }

    fn grow_to(&mut self, length: usize) -> bool {
        if length > MAX_PIECE {
            return false;
        }
        // As a vector grows that is not told how far.
        let capacity = length.next_power_of_two();
        let has_room = match &mut self.taken {
            Some(taken) => taken.grow_to(capacity as u64),
            None => {
                self.taken = self.room.taken(capacity as u64);
                self.taken.is_some()
            }
        };
        if has_room {
            self.octets.reserve_exact(capacity - self.octets.len());
        }
        has_room
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_octets_need_no_room_and_many_give_theirs_back() {
        let room = Arc::new(Room::of(256 << 10));
        let mut one = Kept::within(&room);
        assert!(one.extend(&[1; OWN]));
        assert_eq!(room.free(), room.most());
        assert!(one.extend(&[1; 1]));
        assert_eq!(room.free(), 128 << 10);

        let mut other = Kept::within(&room);
        assert!(other.extend(&[1; OWN + 1]));
        assert_eq!(room.free(), 0);
        assert!(!one.extend(&[1; OWN]), "there is no room");
        assert_eq!(one.len(), OWN + 1);
        drop(other);
        assert!(one.extend(&[1; OWN]));
        one.clear();
        assert_eq!((one.len(), room.free()), (0, room.most()));
        assert!(one.octets.capacity() <= OWN);
    }

    #[test]
    fn no_piece_is_larger_than_the_largest() {
        let room = Arc::new(Room::of(u64::MAX));
        let mut kept = Kept::within(&room);
        assert!(kept.extend(&vec![1; MAX_PIECE]));
        assert!(!kept.extend(&[1]));
    }
}
