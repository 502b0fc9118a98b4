//! Owns who is connected to the admin port: where all places are taken, those who have shown no token make room for
//! who comes next, so that nobody keeps probes and scrapers out by staying.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Who is there, in the order in which they came.
#[derive(Clone)]
pub struct Guests {
    places: Arc<Semaphore>,
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
    _place: OwnedSemaphorePermit,
}

impl Guests {
    /// At most so many at once.
    pub fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            here: Arc::default(),
        }
    }

    /// A place, if need be that of whoever has been there longest without a token. None where all have shown one.
    pub async fn seat(&self) -> Option<Seat> {
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.make_room()?;
                // Who has to leave is gone first, so that there are never more.
                self.places.clone().acquire_owned().await.ok()?
            }
        };
        let guest = Guest {
            known: Arc::default(),
            leaves: CancellationToken::new(),
        };
        self.here().push_back(guest.clone());
        Some(Seat {
            guest,
            guests: self.clone(),
            _place: place,
        })
    }

    fn make_room(&self) -> Option<()> {
        let mut here = self.here();
        let longest = here.iter().position(|guest| !guest.is_known())?;
        here.remove(longest)?.leaves.cancel();
        Some(())
    }

    fn here(&self) -> MutexGuard<'_, VecDeque<Guest>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// It has shown the token: it stays as long as it likes.
    pub fn let_in(&self) {
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
        let mut here = self.guests.here();
        here.retain(|guest| !Arc::ptr_eq(&guest.known, &self.guest.known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_been_there_longest_without_a_token_makes_room() {
        let guests = Guests::new(3);
        let seat = async || guests.seat().await.unwrap();
        let (first, second, third) = (seat().await, seat().await, seat().await);
        first.guest().let_in();
        let leaving = async {
            second.taken().await;
            drop(second);
        };
        let (fourth, ()) = tokio::join!(seat(), leaving);
        let left = [&first, &third, &fourth].map(|s| s.guest().leaves.is_cancelled());
        assert_eq!(left, [false; 3]);
        // One that goes by itself takes nobody's place along.
        drop(third);
        let fifth = seat().await;
        assert!(!fourth.guest().leaves.is_cancelled());
        fourth.guest().let_in();
        fifth.guest().let_in();
        assert!(guests.seat().await.is_none(), "all have shown a token");
    }
}
