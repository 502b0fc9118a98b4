//! Owns what the ledger's file needs beside its orders: its log goes into it, what is old goes, and the
//! two clocks of the machine are compared.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;

use super::desk::Desk;
use super::sqlite_file::beside;
use super::sqlite_rows::drop_entries;

/// How often it is looked after.
pub const UPKEEP: Duration = Duration::from_secs(1);

/// Rows of calls are kept so long: a year, and a month to look back at it.
const KEPT: Duration = Duration::from_secs(400 * 86_400);

/// Counts without an end that nobody used so long are dropped; the rows can tell them again.
const IDLE: Duration = Duration::from_secs(30 * 86_400);

/// So many old rows go at once, to be no burden.
const AT_ONCE: u32 = 200;

/// Old counts are looked for so often.
const SWEEP: Duration = Duration::from_secs(3600);

/// A log of so many octets is moved into the file.
const LOG: u64 = 4 << 20;

/// A log that grew to so many although it was moved meanwhile is moved by the writer itself, who alone can
/// see to it that nothing is added: only then it begins anew.
const LONG_LOG: u64 = 64 << 20;

/// Clocks that differ by more are told of.
const STEP: Duration = Duration::from_secs(300);

/// The state of the upkeep.
#[derive(Debug)]
pub struct Upkeep {
    due: Instant,
    sweep: Instant,
    old_rows: bool,
    clocks: (Instant, Timestamp),
    checkpoints: Option<Checkpoints>,
}

impl Upkeep {
    /// Of the ledger at `path`.
    pub fn new(path: &Path) -> Self {
        let now = Instant::now();
        Self {
            due: now + UPKEEP,
            sweep: now,
            old_rows: true,
            clocks: (now, Timestamp::now()),
            checkpoints: Checkpoints::start(path),
        }
    }

    /// Whether it is time, and if so, not for a while again.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.due;
        if due {
            self.due = now + UPKEEP;
        }
        due
    }

    /// Tells of a wall clock that was set. Windows need nothing done: they follow it forward, and stay
    /// where they are when it goes back.
    pub fn compare_clocks(&mut self) {
        let (now, wall) = (Instant::now(), Timestamp::now());
        let (before, wall_before) = self.clocks;
        let passed = now.duration_since(before).as_secs_f64();
        let stepped = wall.duration_since(wall_before).as_secs_f64() - passed;
        self.clocks = (now, wall);
        if stepped.abs() >= STEP.as_secs_f64() {
            tracing::warn!(
                seconds = stepped,
                "the clock was set: budget windows follow it forward, and do not open again if it goes back"
            );
        }
    }

    /// Drops what is old, a little at a time, and moves a log that became too long.
    pub fn work(&mut self, connection: &Connection, desk: &Mutex<Desk>) -> rusqlite::Result<()> {
        let now = Timestamp::now().as_millisecond();
        if Instant::now() >= self.sweep {
            self.sweep = Instant::now() + SWEEP;
            self.old_rows = true;
            if let Ok(mut desk) = desk.lock() {
                desk.book.drop_idle(now, millis(IDLE));
                desk.finish();
            }
        }
        if self.old_rows {
            let dropped = drop_entries(connection, now.saturating_sub(millis(KEPT)), AT_ONCE)?;
            self.old_rows = dropped > 0;
        }
        let long = self.checkpoints.as_ref().map(|own| &own.long);
        if long.is_some_and(|long| long.swap(false, Ordering::Relaxed)) {
            checkpoint(connection)?;
        }
        Ok(())
    }

    /// Ends the thread beside.
    pub fn end(self) {
        if let Some(Checkpoints { end, thread, .. }) = self.checkpoints {
            drop(end);
            thread.join().ok();
        }
    }
}

/// The thread that moves the log into the file, so that the writer never waits for the disk.
#[derive(Debug)]
struct Checkpoints {
    end: Sender<()>,
    long: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    fn start(path: &Path) -> Option<Self> {
        let (end, ended) = channel();
        let long = Arc::new(AtomicBool::new(false));
        let (told, path) = (long.clone(), path.to_owned());
        let thread = std::thread::Builder::new().name("ledger-log".into());
        let thread = thread.spawn(move || move_log(&path, &ended, &told)).ok()?;
        Some(Self { end, long, thread })
    }
}

fn move_log(path: &Path, ended: &Receiver<()>, long: &AtomicBool) {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let log = PathBuf::from(name);
    let look = || std::fs::metadata(&log).and_then(|log| Ok((log.len(), log.modified()?)));
    let mut connection = None;
    let mut moved = None;
    while ended.recv_timeout(UPKEEP) == Err(RecvTimeoutError::Timeout) {
        let Ok((octets, written)) = look() else {
            continue;
        };
        if octets < LOG || moved == Some(written) {
            continue;
        }
        if connection.is_none() {
            connection = beside(path).ok();
        }
        let outcome = connection.as_ref().map(checkpoint);
        match outcome {
            Some(Ok(())) => moved = Some(written),
            Some(Err(error)) => {
                tracing::debug!(%error, "the ledger's log could not be moved into its file");
                connection = None;
            }
            None => {}
        }
        if look().is_ok_and(|(octets, _)| octets >= LONG_LOG) {
            long.store(true, Ordering::Relaxed);
        }
    }
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
