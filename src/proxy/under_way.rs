//! Owns the count of requests under way at origins and of the connections that are open to them: what is open
//! beyond the requests is idle, and there is no more of that than its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The counts of a process. Cloning is shallow.
#[derive(Clone)]
pub struct UnderWay(Arc<Totals>);

struct Totals {
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// Connections there may be beyond the requests.
    most_idle: usize,
    /// Connections were opened, and nobody has compared since.
    opened: AtomicBool,
}

/// The requests of one lane that are under way.
pub struct Count {
    here: AtomicUsize,
    all: UnderWay,
}

/// One request under way, from before it is sent to the end of its answer.
pub struct Counted(Arc<Count>);

/// One open connection.
pub struct OpenConnection(UnderWay);

impl UnderWay {
    /// Nothing is under way; `most_idle` connections may be open beyond what is.
    pub fn new(most_idle: usize) -> Self {
        Self(Arc::new(Totals {
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            most_idle,
            opened: AtomicBool::new(false),
        }))
    }

    /// A connection to an origin stands.
    pub fn connection(&self) -> OpenConnection {
        let before = self.0.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.0.most_idle {
            self.0.opened.store(true, Ordering::Relaxed);
        }
        OpenConnection(self.clone())
    }

    /// Whether connections must go. Of all who ask after some were opened, one is told so.
    pub fn too_many_idle(&self) -> bool {
        let totals = &*self.0;
        if !totals.opened.load(Ordering::Relaxed) || !totals.opened.swap(false, Ordering::Relaxed) {
            return false;
        }
        let needed = totals.requests.load(Ordering::Relaxed) + totals.most_idle;
        totals.connections.load(Ordering::Relaxed) > needed
    }
}

impl Count {
    /// None yet, of those in `all`.
    pub fn of(all: &UnderWay) -> Self {
        Self {
            here: AtomicUsize::new(0),
            all: all.clone(),
        }
    }

    /// How many there are.
    pub fn here(&self) -> usize {
        self.here.load(Ordering::Relaxed)
    }
}

impl Counted {
    /// One more, however many there are.
    pub fn new(count: &Arc<Count>) -> Self {
        count.here.fetch_add(1, Ordering::Relaxed);
        Self::begun(count)
    }

    /// One more, unless there are `most` already.
    pub fn within(count: &Arc<Count>, most: usize) -> Option<Self> {
        let more = |here: usize| (here < most).then_some(here + 1);
        count
            .here
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self::begun(count))
    }

    fn begun(count: &Arc<Count>) -> Self {
        count.all.0.requests.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.here.fetch_sub(1, Ordering::Relaxed);
        self.0.all.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_requests_and_the_limit_must_go() {
        let all = UnderWay::new(2);
        let count = Arc::new(Count::of(&all));
        let mut open: Vec<_> = (0..2).map(|_| all.connection()).collect();
        assert!(!all.too_many_idle());
        open.push(all.connection());
        let request = Counted::new(&count);
        assert!(!all.too_many_idle(), "one is in use");
        drop(request);
        open.push(all.connection());
        assert!(all.too_many_idle());
        assert!(!all.too_many_idle(), "told once");
        open.clear();
        open.push(all.connection());
        assert!(!all.too_many_idle());
    }

    #[test]
    fn threads_that_come_together_keep_the_count_within_its_limit_and_leave_nothing() {
        let all = UnderWay::new(1);
        let count = Arc::new(Count::of(&all));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        let _open = all.connection();
                        let counted = Counted::within(&count, 2);
                        assert!(count.here() <= 2);
                        drop(counted);
                        all.too_many_idle();
                    }
                });
            }
        });
        assert_eq!(count.here(), 0);
        assert_eq!(all.0.requests.load(Ordering::Relaxed), 0);
        assert_eq!(all.0.connections.load(Ordering::Relaxed), 0);
    }
}
