//! Owns what goes wrong between a client and the Kubernetes API, and the gates that hold a write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::kube_objects::{Key, Kind};

/// What happens to an account's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Cut off: the connection ends without an answer, nothing is done.
    Close,
    /// Cut off: no answer ever, nothing is done, also after healing (the packets are lost).
    Hang,
    /// Everything takes this much longer.
    Latency(Duration),
    /// 429 with `Retry-After` in seconds.
    TooManyRequests(u64),
    /// 5xx, nothing is done.
    Broken(u16),
    /// An admission webhook refuses every write, quoting it.
    Deny,
    /// The write is done, then the connection ends without an answer. Reads are not touched.
    LoseAnswer,
}

/// Where a write is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Read whole, not done.
    Received,
    /// Done, not answered.
    Committed,
}

/// Holds an account's writes to one kind of object until it is released or dropped.
pub struct Gate {
    inner: Arc<Hold>,
}

struct Hold {
    account: String,
    kind: Kind,
    stage: Stage,
    open: watch::Sender<bool>,
    waiting: watch::Sender<Vec<Key>>,
}

impl Gate {
    /// Waits until a write stands at the gate.
    pub async fn reached(&self) -> Key {
        let mut waiting = self.inner.waiting.subscribe();
        let arrived = waiting.wait_for(|keys| !keys.is_empty());
        let arrived = tokio::time::timeout(Duration::from_secs(20), arrived).await;
        arrived.expect("no write came to the gate").unwrap()[0].clone()
    }

    /// Lets everything through from now on.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.inner.open.send_replace(true);
    }
}

/// All gates.
#[derive(Default)]
pub struct Gates {
    all: Mutex<Vec<Arc<Hold>>>,
}

impl Gates {
    pub fn hold(&self, account: &str, kind: Kind, stage: Stage) -> Gate {
        let inner = Arc::new(Hold {
            account: account.to_owned(),
            kind,
            stage,
            open: watch::Sender::new(false),
            waiting: watch::Sender::new(Vec::new()),
        });
        self.all.lock().unwrap().push(inner.clone());
        Gate { inner }
    }

    /// Waits until every gate that is shut for this write is open.
    pub async fn pass(&self, account: &str, key: &Key, stage: Stage) {
        let shut: Vec<Arc<Hold>> = {
            let mut all = self.all.lock().unwrap();
            all.retain(|hold| !*hold.open.borrow());
            all.iter()
                .filter(|h| (h.account.as_str(), h.kind, h.stage) == (account, key.kind, stage))
                .cloned()
                .collect()
        };
        for hold in shut {
            hold.waiting.send_modify(|keys| keys.push(key.clone()));
            hold.open.subscribe().wait_for(|open| *open).await.ok();
        }
    }
}
