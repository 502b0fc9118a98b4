//! Owns the ledger's file: who may open it, that it is ours, its tables, and whether it was closed well.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::ledger::LedgerError;
use crate::rt::file::cure_of;
use crate::rt::lock::Lock;
use crate::types::cure::Cure;

/// "TGLB" in the file's header: SQLite's application id.
const APPLICATION: i64 = 0x5447_4c42;

/// The version of the tables.
const VERSION: i64 = 1;

/// A process that checkpoints or reads holds the file for no longer.
const BUSY: Duration = Duration::from_secs(5);

/// The thread that has the tables waits so long for somebody else who writes to them: those who wait for the
/// disk wait behind it, and the journal has what the tables then miss.
const BRIEFLY: Duration = Duration::from_millis(250);

/// A report that finds nobody writing holds the lock for a moment, to read what the last process left.
const READING: Duration = Duration::from_millis(500);

/// Times are milliseconds since the epoch, amounts are in a limit's own unit (nano-dollars, thousandths
/// of a token, requests), costs in nano-dollars.
const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE price_version(id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, first_used INTEGER NOT NULL);
CREATE TABLE budget_limit(id TEXT PRIMARY KEY, budget TEXT NOT NULL, unit TEXT NOT NULL, max INTEGER NOT NULL,
  first_seen INTEGER NOT NULL, configured INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE series(id INTEGER PRIMARY KEY, limit_id TEXT NOT NULL, scope TEXT NOT NULL, reach INTEGER NOT NULL,
  newest INTEGER NOT NULL, past INTEGER NOT NULL, escrow INTEGER NOT NULL, lost INTEGER NOT NULL,
  lost_at INTEGER NOT NULL, touched INTEGER NOT NULL, UNIQUE(limit_id, scope));
CREATE TABLE counter(series INTEGER NOT NULL, win_start INTEGER NOT NULL, win_end INTEGER, settled INTEGER NOT NULL,
  carried INTEGER NOT NULL, held INTEGER NOT NULL, told INTEGER NOT NULL, PRIMARY KEY(series, win_start)) WITHOUT ROWID;
CREATE TABLE reservation(rid TEXT NOT NULL, attempt INTEGER NOT NULL, at INTEGER NOT NULL, agent TEXT NOT NULL,
  execution TEXT, host TEXT NOT NULL, model TEXT NOT NULL, cost INTEGER NOT NULL, input INTEGER NOT NULL,
  output INTEGER NOT NULL, items BLOB NOT NULL, PRIMARY KEY(rid, attempt)) WITHOUT ROWID;
CREATE TABLE entry(rid TEXT NOT NULL, attempt INTEGER NOT NULL, part INTEGER NOT NULL, at INTEGER NOT NULL,
  settled_at INTEGER NOT NULL, agent TEXT NOT NULL, execution TEXT, host TEXT NOT NULL, credential TEXT,
  model TEXT NOT NULL, req_model TEXT NOT NULL, price_version INTEGER, input INTEGER NOT NULL,
  cache_write_5m INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL, cache_read INTEGER NOT NULL,
  output INTEGER NOT NULL, audio_input INTEGER NOT NULL, audio_output INTEGER NOT NULL, fees TEXT,
  cost INTEGER NOT NULL, estimated INTEGER NOT NULL, ending TEXT NOT NULL,
  PRIMARY KEY(rid, attempt, part)) WITHOUT ROWID;
CREATE INDEX entry_at ON entry(at);
CREATE INDEX entry_agent ON entry(agent, at);
CREATE INDEX entry_execution ON entry(execution, at) WHERE execution IS NOT NULL;
CREATE TABLE amendment(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, limit_id TEXT NOT NULL, budget TEXT, scope TEXT,
  kind TEXT NOT NULL, by_amount INTEGER, until INTEGER, old INTEGER NOT NULL, new INTEGER NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL);
";

/// The open file of the one process that writes it.
#[derive(Debug)]
pub struct LedgerFile {
    /// Where it is.
    pub path: PathBuf,
    /// The connection that writes.
    pub connection: Connection,
    /// How it was left.
    pub left: Left,
    /// Whether it is still there.
    pub place: InPlace,
    _lock: Lock,
}

/// A file that somebody could take away while it is in use.
#[derive(Clone, Debug)]
pub struct InPlace {
    path: PathBuf,
    /// Device and number of the file: another one at the path is not ours.
    identity: (u64, u64),
}

impl InPlace {
    /// The file that is there now.
    pub fn of(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    /// Where the file was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the file that is written.
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|there| there == self.identity)
    }

    /// The same, with why the ledger cannot be used.
    pub fn check(&self) -> Result<(), LedgerError> {
        if self.is_there() {
            return Ok(());
        }
        Err(LedgerError::new(format!(
            "the ledger {} was removed or replaced while it is in use: put it back, or start this process again",
            self.path.display()
        )))
    }
}

/// How the process before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Well, or there was none.
    Clean,
    /// It was killed: everything it wrote is there.
    Killed,
    /// The machine went down: what it wrote last may be missing.
    PowerLost,
}

impl LedgerFile {
    /// Opens or makes the ledger at `path` for this process alone. `boot` names the machine's present
    /// run; nothing means that it cannot be known, and then the worst is assumed.
    pub fn open(path: &Path, boot: Option<&str>) -> Result<Self, LedgerError> {
        let lock = lock(path, READING)?;
        make(path)?;
        Self::open_locked(path, boot, lock)
    }

    /// Opens one that is there, if nobody has it open.
    pub fn open_unused(path: &Path) -> Result<Self, LedgerError> {
        Self::open_locked(path, None, lock(path, Duration::ZERO)?)
    }

    fn open_locked(path: &Path, boot: Option<&str>, lock: Lock) -> Result<Self, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(path, flags).map_err(|error| broken(path, &error))?;
        // A process that has given up the temporary directories sorts in memory.
        connection
            .pragma_update(None, "temp_store", "MEMORY")
            .map_err(|error| broken(path, &error))?;
        ours(&connection, path)?;
        let left = prepare(&connection, boot).map_err(|error| broken(path, &error))?;
        sync_directory(path).map_err(|error| unreachable(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            connection,
            left,
            place: InPlace::of(path.to_owned()).map_err(|error| unreachable(path, &error))?,
            _lock: lock,
        })
    }

    /// From now on nobody is waited for at length.
    pub fn serve(&self) -> Result<(), LedgerError> {
        let set = self.connection.busy_timeout(BRIEFLY);
        set.map_err(|error| broken(&self.path, &error))
    }

    /// Marks the file as closed well, and moves everything into it.
    pub fn close(&self) -> Result<(), LedgerError> {
        let close = || {
            self.connection.busy_timeout(BUSY)?;
            self.connection.pragma_update(None, "synchronous", "FULL")?;
            set_meta(&self.connection, "clean", "1")?;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            self.connection.query_row(sql, [], |_| Ok(()))
        };
        close().map_err(|error: rusqlite::Error| broken(&self.path, &error))
    }
}

/// A transaction that writes, undone unless it is committed. The library's own has SQLite read `BEGIN` and
/// `COMMIT` anew each time, which costs as much as a row.
pub struct Transaction<'c> {
    connection: &'c Connection,
    open: bool,
}

impl<'c> Transaction<'c> {
    /// Begins one.
    pub fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Self {
            connection,
            open: true,
        })
    }

    /// Keeps what was written.
    pub fn commit(mut self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.open = false;
        Ok(())
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite itself undoes one after some errors; that there is none left is no error here.
        if self.open && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").ok();
        }
    }
}

/// A connection that only reads, beside whoever writes. For reports.
pub fn read_only(path: &Path) -> Result<Connection, LedgerError> {
    if !path.exists() {
        let why = format!(
            "there is no ledger at {}; it is made when a proxy with a budget first runs",
            path.display()
        );
        return Err(LedgerError::new(why));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| broken(path, &error))?;
    connection
        .busy_timeout(BUSY)
        .map_err(|error| broken(path, &error))?;
    if is_fresh(&connection, path)? {
        return Err(LedgerError::new(format!(
            "the ledger at {} is still empty",
            path.display()
        )));
    }
    Ok(connection)
}

/// A second connection of the writing process, to move the log into the file meanwhile.
pub fn beside(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// The machine's present run (proc(5), `/proc/sys/kernel/random/boot_id`), where it tells.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// The number of the last record of the journal that the tables have.
pub fn folded(connection: &Connection) -> rusqlite::Result<u64> {
    let number = meta(connection, "folded")?;
    Ok(number.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Notes that number, within the transaction that writes what the record says.
pub fn set_folded(connection: &Connection, number: u64) -> rusqlite::Result<()> {
    set_meta(connection, "folded", &number.to_string())
}

/// Why the journal cannot be written.
pub fn unwritable(path: &Path, error: &io::Error) -> LedgerError {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on its volume; it goes on by itself then"
        }
        _ => "see to its volume; it goes on by itself once it can be written",
    };
    LedgerError::new(format!(
        "the journal of the ledger {} cannot be written: {error}; {hint}",
        path.display()
    ))
}

/// Why the file cannot be used, from what SQLite said.
pub fn broken(path: &Path, error: &rusqlite::Error) -> LedgerError {
    use rusqlite::ErrorCode as Code;
    let (cure, hint) = match error.sqlite_error_code() {
        Some(Code::DiskFull) => (
            Cure::Time,
            "make room on its volume; it goes on by itself then",
        ),
        Some(Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen) => (
            Cure::Change,
            "its directory must be there and writable for this process",
        ),
        Some(Code::NotADatabase) => (
            Cure::Change,
            "this file is not a ledger: name another, or move this one away",
        ),
        Some(Code::DatabaseCorrupt) => (
            Cure::Change,
            "move it away together with its -wal file and restore a copy; limits count from it",
        ),
        _ => (
            Cure::Time,
            "see to its volume; it goes on by itself once the file can be written",
        ),
    };
    let text = format!(
        "the ledger {} cannot be used: {error}; {hint}",
        path.display()
    );
    LedgerError::of(cure, text)
}

/// Why the file cannot be opened.
pub fn unreachable(path: &Path, error: &io::Error) -> LedgerError {
    let cure = cure_of(error);
    let hint = match cure {
        // What it holds is not ours, and the error says what to do.
        _ if error.kind() == io::ErrorKind::InvalidData => "",
        Cure::Time => "; see to its volume",
        Cure::Change => "; its directory must be there and writable for this process",
    };
    let text = format!(
        "the ledger {} cannot be opened: {error}{hint}",
        path.display()
    );
    LedgerError::of(cure, text)
}

fn lock(path: &Path, patience: Duration) -> Result<Lock, LedgerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let begun = Instant::now();
    loop {
        let taken = Lock::try_file(&name).map_err(|error| unreachable(path, &error))?;
        match taken {
            Some(lock) => return Ok(lock),
            None if begun.elapsed() < patience => std::thread::sleep(READING / 20),
            None => break,
        }
    }
    Err(LedgerError::new(format!(
        "the ledger {} is in use by another process (which holds {}): a ledger has one writer, so give each proxy its own file",
        path.display(),
        name.display()
    )))
}

/// Makes the file if it is not there, for its owner alone: SQLite gives its log the same mode.
fn make(path: &Path) -> Result<(), LedgerError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let outcome = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(path, Permissions::from_mode(0o600))
        }
        other => other.map(drop),
    };
    outcome.map_err(|error| unreachable(path, &error))
}

/// Refuses what is not a ledger, or one of a later version.
fn ours(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    if !is_fresh(connection, path)? {
        return Ok(());
    }
    let make = || {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "application_id", APPLICATION)?;
        connection.execute_batch(&format!(
            "BEGIN; {TABLES} PRAGMA user_version={VERSION}; COMMIT;"
        ))
    };
    make().map_err(|error| broken(path, &error))
}

/// Whether it has no tables yet.
fn is_fresh(connection: &Connection, path: &Path) -> Result<bool, LedgerError> {
    let number = |sql: &str| {
        let row = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        row.map_err(|error| broken(path, &error))
    };
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_master")?;
    match (application, version, tables) {
        (0 | APPLICATION, 0, 0) => Ok(true),
        (APPLICATION, VERSION, _) => Ok(false),
        (APPLICATION, later, _) => Err(LedgerError::of(
            Cure::Change,
            format!(
                "the ledger {} was written by a later version (tables {later}, this one knows {VERSION}): run that version, or name another file",
                path.display()
            ),
        )),
        _ => Err(LedgerError::of(
            Cure::Change,
            format!(
                "{} is a database of another program: name another file for the ledger",
                path.display()
            ),
        )),
    }
}

fn prepare(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<Left> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    let clean = meta(connection, "clean")?;
    let known = meta(connection, "boot_id")?;
    let left = match (clean.as_deref(), known) {
        (None | Some("1"), _) => Left::Clean,
        (_, Some(known)) if boot == Some(&*known) => Left::Killed,
        _ => Left::PowerLost,
    };
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(left)
}

/// Notes that the file is in use on this run of the machine. Within the transaction that makes good what
/// the process before left.
pub fn begin(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<()> {
    set_meta(connection, "boot_id", boot.unwrap_or("unknown"))?;
    set_meta(connection, "clean", "0")
}

fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    connection
        .query_row(sql, [key], |row| row.get(0))
        .optional()
}

fn set_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2";
    // Written with every batch: read by SQLite once.
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute([key, value]).map(drop)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Waits until the names beside it are on the disk.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
