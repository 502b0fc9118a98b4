//! Owns how something is handed to a thread that may have stopped taking anything, for a bounded time.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// How often a queue that is full is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// Blocks until the message is in the queue, at most until the deadline. Whether it is.
pub fn hand_over<T>(queue: &SyncSender<T>, message: T, deadline: Instant) -> bool {
    let mut message = message;
    loop {
        match queue.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(_)) if Instant::now() >= deadline => return false,
            Err(TrySendError::Full(back)) => message = back,
        }
        std::thread::sleep(AGAIN);
    }
}
