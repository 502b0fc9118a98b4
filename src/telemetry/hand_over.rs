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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_queue_that_nobody_empties_is_left_at_the_deadline() {
        let (queue, held) = sync_channel(1);
        assert!(hand_over(&queue, 1, Instant::now()));
        let (done, ended) = sync_channel(1);
        std::thread::spawn(move || {
            let soon = Instant::now() + AGAIN * 3;
            done.send(hand_over(&queue, 2, soon)).ok();
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(false));
        drop(held);
    }
}
