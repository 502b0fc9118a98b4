//! Owns the end of the process: connections are asked to finish, waited for, then cut.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A handle to the process's open connections. Cloning is shallow.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    tasks: TaskTracker,
    asked: CancellationToken,
    forced: CancellationToken,
}

impl Drain {
    /// Runs `task` as one that the end of the process waits for, and cuts when waiting is over.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let forced = self.forced.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = forced.cancelled() => {}
            }
        });
    }

    /// Ends when connections are asked to finish.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Whether connections have been asked to finish.
    pub fn is_draining(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Asks every connection to finish, without waiting.
    pub fn ask(&self) {
        self.asked.cancel();
        self.tasks.close();
    }

    /// Asks every connection to finish and waits up to `grace`; returns how many had to be cut.
    pub async fn finish(&self, grace: Duration) -> usize {
        self.ask();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.forced.cancel();
        self.tasks.wait().await;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_that_finish_in_time_are_not_cut() {
        let drain = Drain::default();
        let inner = drain.clone();
        drain.spawn(async move {
            inner.asked().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        });
        assert_eq!(drain.finish(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_do_not_are() {
        let drain = Drain::default();
        drain.spawn(std::future::pending());
        assert_eq!(drain.finish(Duration::from_secs(5)).await, 1);
        assert_eq!(drain.open(), 0);
    }
}
