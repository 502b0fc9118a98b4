//! Owns who is connected to the admin port: where all places are taken, those who have shown no token make room for
//! who comes next, so that nobody keeps probes and scrapers out by staying.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Who is there, in the order in which they came.
#[derive(Clone)]
pub struct Guests {
    most: usize,
    here: Arc<Mutex<VecDeque<Guest>>>,
}

/// One connection, as its requests know it.
#[derive(Clone, Debug)]
pub struct Guest {
    known: Arc<AtomicBool>,
    leaves: CancellationToken,
}

/// A place, until it is dropped.
pub struct Seat {
    guest: Guest,
    guests: Guests,
}

impl Guests {
    /// At most so many at once.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            here: Arc::default(),
        }
    }

    /// A place, if need be that of whoever has been there longest without a token. None where all have shown one.
    pub fn seat(&self) -> Option<Seat> {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        if here.len() >= self.most {
            let longest = here.iter().position(|guest| !guest.is_known())?;
            here.remove(longest)?.leaves.cancel();
        }
        let guest = Guest {
            known: Arc::default(),
            leaves: CancellationToken::new(),
        };
        here.push_back(guest.clone());
        Some(Seat {
            guest,
            guests: self.clone(),
        })
    }
}

impl Guest {
    /// It has shown the token: it stays as long as it likes.
    pub fn is_let_in(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }
}

impl Seat {
    /// Whose it is.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Ends when the place is somebody else's.
    pub async fn taken(&self) {
        self.guest.leaves.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut here = self
            .guests
            .here
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        here.retain(|guest| !Arc::ptr_eq(&guest.known, &self.guest.known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_there_longest_without_a_token_makes_room() {
        let guests = Guests::new(3);
        let [first, second, third] = [(); 3].map(|()| guests.seat().unwrap());
        first.guest().is_let_in();
        let fourth = guests.seat().unwrap();
        let left = [&first, &second, &third, &fourth].map(|s| s.guest().leaves.is_cancelled());
        assert_eq!(left, [false, true, false, false]);
        // One that goes by itself takes nobody's place along, not even where its own was given away.
        drop(second);
        drop(third);
        let fifth = guests.seat().unwrap();
        assert!(!fourth.guest().leaves.is_cancelled());
        fourth.guest().is_let_in();
        fifth.guest().is_let_in();
        assert!(guests.seat().is_none(), "all have shown a token");
    }
}
