//! Owns the files of the audit log: one chain of lines that goes on over restarts, rotated files and the
//! several processes that may append to it (the proxy, and commands that make a CA or store a login).
//!
//! Whoever appends holds the lock beside the file, and looks at the file's end first. An end that is no
//! whole record, as a crash leaves it, is put aside and told of in the chain.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::audit_event::Event;
use super::audit_key::Signer;
use super::audit_line::{Hash, Link, Tip, seal};
use crate::rt::file::{cure_of, make_private_dir, parent};
use crate::rt::lock::Lock;
use crate::types::cure::Cure;

/// When files are rotated, and how many are kept.
#[derive(Clone, Debug)]
pub struct FileTerms {
    /// The file that is appended to.
    pub path: PathBuf,
    /// It is rotated once it has grown to this, in octets.
    pub size: u64,
    /// It is rotated once its first record is older than this.
    pub age: Duration,
    /// How many rotated files are kept; the oldest go.
    pub keep: usize,
}

/// Why nothing could be appended. What, where, and the system's word for why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit log {path} cannot be {doing}: {cause}")]
pub struct FileError {
    /// The file.
    pub path: String,
    doing: &'static str,
    cause: String,
    cure: Cure,
}

impl FileError {
    /// What it takes to be gone.
    pub fn cure(&self) -> Cure {
        self.cure
    }

    /// Nobody would write it.
    pub(super) fn no_thread(error: &io::Error) -> Self {
        Self {
            path: String::new(),
            doing: "written",
            cause: format!("no thread: {error}"),
            cure: Cure::Time,
        }
    }

    /// Nobody writes it any more.
    pub(super) fn thread_ended() -> Self {
        Self {
            path: String::new(),
            doing: "written",
            cause: "its thread ended unexpectedly; start this process again".to_owned(),
            cure: Cure::Time,
        }
    }
}

/// The files, as one process appends to them.
pub struct AuditFile {
    terms: FileTerms,
    open: Option<Open>,
    /// The last record that this process wrote.
    last: Tip,
}

/// The file as this process left it.
struct Open {
    file: File,
    identity: (u64, u64),
    size: u64,
    tip: Tip,
    /// Its first record's number and time; nothing while it is empty.
    first: Option<(u64, SystemTime)>,
}

/// Longest tail that is searched for the last whole record.
const TAIL: u64 = 4 << 20;
/// How long another process may hold the lock; it writes a few lines.
const PATIENCE: Duration = Duration::from_secs(5);

impl AuditFile {
    /// Opens nothing yet.
    pub fn new(terms: FileTerms) -> Self {
        Self {
            terms,
            open: None,
            last: Tip::NONE,
        }
    }

    /// Appends these events, and a signed head if `signer` is given. All of them or none; where this
    /// fails in the middle, the half of it is taken away again, or put aside by the next who appends.
    pub fn append(
        &mut self,
        now: SystemTime,
        events: &[(SystemTime, Event)],
        signer: Option<&Signer>,
    ) -> Result<Tip, FileError> {
        let _lock = self.lock()?;
        let mut preface = Vec::new();
        let mut open = match self
            .open
            .take()
            .filter(|open| is_as_left(&self.terms, open))
        {
            Some(open) => open,
            None => self.find(&mut preface)?,
        };
        let broken = |error: serde_json::Error| self.failed("written", error.into());
        if let Some(cause) = self.is_full(&open, now) {
            let (next, rotated) = self.rotate(open, cause)?;
            open = next;
            preface.insert(0, rotated);
        }
        let (mut text, mut tip) = (Vec::new(), open.tip);
        // What is said of the file itself comes first, and the events after it.
        for event in &preface {
            seal(&mut text, &mut tip, now, event).map_err(broken)?;
        }
        for (time, event) in events {
            seal(&mut text, &mut tip, *time, event).map_err(broken)?;
        }
        if let Some(signer) = signer {
            let head = Event::Head(signer.head(tip));
            seal(&mut text, &mut tip, now, &head).map_err(broken)?;
        }
        if let Err(error) = open.file.write_all(&text) {
            // A disk that is full takes a part. If this fails too, the next who appends finds a torn end.
            open.file.set_len(open.size).ok();
            return Err(self.failed("written", error));
        }
        open.size += text.len() as u64;
        open.first.get_or_insert((open.tip.seq + 1, now));
        open.tip = tip;
        self.last = tip;
        self.open = Some(open);
        Ok(tip)
    }

    /// Sees to it that what was appended outlives a loss of power.
    pub fn sync(&mut self) -> Result<(), FileError> {
        match self.open.as_ref().map(|open| open.file.sync_data()) {
            Some(Err(error)) => Err(self.failed("synced", error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, doing: &'static str, cause: io::Error) -> FileError {
        FileError {
            cure: cure_of(&cause),
            path: self.terms.path.display().to_string(),
            doing,
            cause: cause.to_string(),
        }
    }

    fn lock(&self) -> Result<Lock, FileError> {
        let path = lock_path(&self.terms.path);
        let failed = |error: io::Error| self.failed("locked", error);
        make_private_dir(parent(&self.terms.path)).map_err(failed)?;
        let patience = Instant::now() + PATIENCE;
        loop {
            match Lock::try_file(&path).map_err(failed)? {
                Some(lock) => return Ok(lock),
                None if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                None => {
                    let why = format!("another process holds {}", path.display());
                    return Err(self.failed("locked", io::Error::other(why)));
                }
            }
        }
    }

    /// Opens the file, or makes it, and finds the chain's end. What is to be told of that goes to `preface`.
    fn find(&self, preface: &mut Vec<Event>) -> Result<Open, FileError> {
        let failed = |error: io::Error| self.failed("opened", error);
        let mut file = self.create().map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let end = read_end(&mut file, size).map_err(failed)?;
        let torn = match end.whole < size {
            true => Some(self.put_aside(&mut file, end.whole).map_err(failed)?),
            false => None,
        };
        let tip = match end.tip {
            Some(tip) => tip,
            None => self.continued(preface).map_err(failed)?,
        };
        preface.extend(torn);
        if tip.seq < self.last.seq {
            preface.push(Event::Cut {
                records: self.last.seq - tip.seq,
                head: self.last.hash.to_string(),
            });
        }
        let first = read_first(&file).map_err(failed)?;
        self.opened(file, tip, first).map_err(failed)
    }

    /// What an empty file follows: the newest rotated one, or what this process wrote to one that is gone.
    fn continued(&self, preface: &mut Vec<Event>) -> io::Result<Tip> {
        let newest = rotated_files(&self.terms.path).pop();
        let (previous, tip) = match newest {
            Some((_, previous)) => (file_name(&previous), last_tip(&previous)?),
            None => (String::new(), Tip::NONE),
        };
        let (previous, tip) = match tip.seq < self.last.seq {
            true => (String::new(), self.last),
            false => (previous, tip),
        };
        if tip != Tip::NONE {
            let cause = "moved";
            preface.push(Event::Rotated { previous, cause });
        }
        Ok(tip)
    }

    fn create(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.terms.path)
    }

    fn opened(&self, file: File, tip: Tip, first: Option<(u64, SystemTime)>) -> io::Result<Open> {
        let metadata = file.metadata()?;
        Ok(Open {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            file,
            tip,
            first,
        })
    }

    /// Moves everything from `whole` on to a file beside this one.
    fn put_aside(&self, file: &mut File, whole: u64) -> io::Result<Event> {
        let mut torn = Vec::new();
        file.seek(SeekFrom::Start(whole))?;
        file.read_to_end(&mut torn)?;
        let sha256 = Hash::of(&torn).to_string();
        let kept = format!("{}.torn-{}", file_name(&self.terms.path), &sha256[..16]);
        let aside = self.terms.path.with_file_name(&kept);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut copy = options.open(&aside)?;
        copy.write_all(&torn)?;
        copy.sync_all()?;
        file.set_len(whole)?;
        Ok(Event::Torn {
            bytes: torn.len() as u64,
            kept,
            sha256,
        })
    }

    fn is_full(&self, open: &Open, now: SystemTime) -> Option<&'static str> {
        let (_, begun) = open.first?;
        if open.size >= self.terms.size {
            return Some("size");
        }
        let age = now.duration_since(begun).unwrap_or_default();
        (age > self.terms.age).then_some("age")
    }

    fn rotate(&self, open: Open, cause: &'static str) -> Result<(Open, Event), FileError> {
        let failed = |error: io::Error| self.failed("rotated", error);
        let first = open.first.map_or(0, |(seq, _)| seq);
        let previous = rotated_name(&self.terms.path, first);
        open.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.terms.path, &previous).map_err(failed)?;
        let file = self.create().map_err(failed)?;
        if let Ok(directory) = File::open(parent(&self.terms.path)) {
            // Some file systems cannot sync a directory; the chain tells if the rename is lost.
            directory.sync_all().ok();
        }
        let mut old = rotated_files(&self.terms.path);
        old.truncate(old.len().saturating_sub(self.terms.keep));
        for (_, path) in old {
            std::fs::remove_file(path).map_err(failed)?;
        }
        let next = self.opened(file, open.tip, None).map_err(failed)?;
        let previous = file_name(&previous);
        Ok((next, Event::Rotated { previous, cause }))
    }
}

/// Whether the file still is the one that was appended to, and nobody else did meanwhile.
fn is_as_left(terms: &FileTerms, open: &Open) -> bool {
    let there = std::fs::metadata(&terms.path);
    there.is_ok_and(|there| (there.dev(), there.ino()) == open.identity && there.len() == open.size)
}

/// How far a file is made of whole records, and the last of them.
struct End {
    whole: u64,
    tip: Option<Tip>,
}

fn read_end(file: &mut File, size: u64) -> io::Result<End> {
    let start = size.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let mut end = tail.iter().rposition(|b| *b == b'\n');
    while let Some(at) = end {
        let from = tail[..at]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |b| b + 1);
        if let Ok(link) = Link::read(&tail[from..at]) {
            return Ok(End {
                whole: start + at as u64 + 1,
                tip: Some(link.tip()),
            });
        }
        end = from.checked_sub(1);
    }
    Ok(End {
        whole: 0,
        tip: None,
    })
}

fn last_tip(path: &Path) -> io::Result<Tip> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let end = read_end(&mut file, size)?;
    end.tip.ok_or_else(|| {
        io::Error::other(format!(
            "{} before it holds no record; move it away to begin a new chain",
            path.display()
        ))
    })
}

fn read_first(mut file: &File) -> io::Result<Option<(u64, SystemTime)>> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(TAIL)).read_until(b'\n', &mut line)?;
    let Ok(link) = Link::read(line.trim_ascii_end()) else {
        return Ok(None);
    };
    let begun: Result<jiff::Timestamp, _> = link.time.parse();
    Ok(begun.ok().map(|begun| (link.seq, begun.into())))
}

/// The lock that whoever appends holds.
pub fn lock_path(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.lock", file_name(path)))
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// `audit-000000000001.jsonl` beside `audit.jsonl`: the number of its first record.
fn rotated_name(path: &Path, first: u64) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path
        .extension()
        .map(|e| format!(".{}", e.to_string_lossy()));
    path.with_file_name(format!(
        "{stem}-{first:012}{}",
        extension.unwrap_or_default()
    ))
}

/// Rotated files beside `path`, oldest first, each with the number of its first record.
pub fn rotated_files(path: &Path) -> Vec<(u64, PathBuf)> {
    let stem = format!(
        "{}-",
        path.file_stem().unwrap_or_default().to_string_lossy()
    );
    let extension = path
        .extension()
        .map_or_else(String::new, |e| format!(".{}", e.to_string_lossy()));
    let entries = std::fs::read_dir(parent(path))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix(&stem)?.strip_suffix(&extension)?;
            let digits = number.len() == 12 && number.bytes().all(|b| b.is_ascii_digit());
            Some((number.parse().ok().filter(|_| digits)?, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Every file of the log that is there, oldest first.
pub fn all_files(path: &Path) -> Vec<PathBuf> {
    let rotated = rotated_files(path).into_iter().map(|(_, path)| path);
    let own = path.exists().then(|| path.to_path_buf());
    rotated.chain(own).collect()
}

#[cfg(test)]
#[path = "audit_file_tests.rs"]
mod tests;
