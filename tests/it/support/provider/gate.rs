//! Owns a place where a test holds answers: it learns how many came, and lets them go.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

/// A gate that many answers may stand at. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Barrier>);

#[derive(Debug)]
struct Barrier {
    pass: Semaphore,
    came: watch::Sender<usize>,
}

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Barrier {
            pass: Semaphore::new(0),
            came: watch::Sender::new(0),
        }))
    }

    /// Stands here until it is let go.
    pub async fn stand(&self) {
        self.0.came.send_modify(|came| *came += 1);
        if let Ok(pass) = self.0.pass.acquire().await {
            pass.forget();
        }
    }

    /// How many came, those who went on among them.
    pub fn came(&self) -> usize {
        *self.0.came.borrow()
    }

    /// Waits until so many came.
    pub async fn arrived(&self, count: usize) {
        let mut came = self.0.came.subscribe();
        let enough = came.wait_for(|came| *came >= count);
        let enough = tokio::time::timeout(Duration::from_secs(60), enough).await;
        assert!(
            enough.is_ok(),
            "{} of {count} came to the gate",
            self.came()
        );
    }

    /// Lets so many go, now or when they come.
    pub fn let_go(&self, count: usize) {
        self.0.pass.add_permits(count);
    }

    /// Lets everybody go from now on.
    pub fn open(&self) {
        self.0.pass.close();
    }
}
