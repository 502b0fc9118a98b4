//! Owns the places where a test holds token requests: it learns who stands there, and lets them go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::fault::Stage;

/// What becomes of one who waited.
enum Leave {
    Pass,
    Cut,
}

#[derive(Default)]
struct Place {
    closed: bool,
    waiting: Vec<oneshot::Sender<Leave>>,
}

#[derive(Default)]
struct Barrier {
    place: Mutex<Place>,
    arrived: Notify,
}

/// One for each stage; open until a test closes it.
#[derive(Default)]
pub struct Gates {
    received: Arc<Barrier>,
    rotated: Arc<Barrier>,
}

impl Gates {
    fn at(&self, stage: Stage) -> &Arc<Barrier> {
        match stage {
            Stage::Received => &self.received,
            Stage::Rotated => &self.rotated,
        }
    }

    pub fn close(&self, stage: Stage) -> Gate {
        let barrier = self.at(stage).clone();
        barrier.place.lock().unwrap().closed = true;
        Gate(barrier)
    }

    /// Stands at the gate while it is closed. `None`: cut off.
    pub async fn pass(&self, stage: Stage) -> Option<()> {
        let barrier = self.at(stage);
        let leave = {
            let mut place = barrier.place.lock().unwrap();
            if !place.closed {
                return Some(());
            }
            let (sender, leave) = oneshot::channel();
            place.waiting.push(sender);
            leave
        };
        barrier.arrived.notify_waiters();
        match leave.await {
            Ok(Leave::Cut) => None,
            _ => Some(()),
        }
    }
}

/// A closed gate. A request that stands there goes on when it is let go, even if its client is gone
/// by then: the provider has it. Opens when dropped.
#[must_use]
pub struct Gate(Arc<Barrier>);

impl Gate {
    /// Waits until so many requests stand here.
    pub async fn arrived(&self, count: usize) {
        let arrived = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let changed = self.0.arrived.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.waiting() >= count {
                    return;
                }
                changed.await;
            }
        });
        let arrived = arrived.await;
        assert!(
            arrived.is_ok(),
            "{} of {count} stand at the gate",
            self.waiting()
        );
    }

    pub fn waiting(&self) -> usize {
        self.0.place.lock().unwrap().waiting.len()
    }

    /// Lets the one go that came first.
    pub fn let_one_go(&self) {
        let mut place = self.0.place.lock().unwrap();
        assert!(!place.waiting.is_empty(), "nobody stands at the gate");
        place.waiting.remove(0).send(Leave::Pass).ok();
    }

    /// Cuts the connections of those who stand here; the gate stays closed.
    pub fn cut(&self) {
        for sender in self.0.place.lock().unwrap().waiting.drain(..) {
            sender.send(Leave::Cut).ok();
        }
    }

    /// Lets everybody go.
    pub fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut place = self.0.place.lock().unwrap();
        place.closed = false;
        for sender in place.waiting.drain(..) {
            sender.send(Leave::Pass).ok();
        }
    }
}
