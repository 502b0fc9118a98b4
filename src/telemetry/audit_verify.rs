//! Owns the check of a whole audit log: every record is what was written, none is missing, none was put
//! in, and the order is the one they were written in.
//!
//! What it cannot see by itself: records cut off at the end, and a chain that somebody with the file has
//! reckoned anew from some record on. A signed head shows the second; a head that is kept elsewhere
//! (`expected`) shows both.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::audit_file::{all_files, lock_path};
use super::audit_key::Verifier;
use super::audit_line::{Flaw, Hash, Link, Tip};

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {fault}", place(*line))]
pub struct Finding {
    /// The file's name.
    pub file: String,
    /// The line, from 1; 0 for the log as a whole.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A line is not what was written.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// It has no end.
    #[error(
        "the last line is incomplete: a crash, or a cut; the next start puts it aside and says so in the log"
    )]
    Incomplete,
    /// Records are missing before this one.
    #[error("record {found} follows record {last}: {} missing", count(found - last - 1))]
    Missing {
        /// The record before it.
        last: u64,
        /// This one.
        found: u64,
    },
    /// This one belongs elsewhere.
    #[error("record {found} follows record {last}: records were put in, repeated or swapped")]
    Order {
        /// The record before it.
        last: u64,
        /// This one.
        found: u64,
    },
    /// The number fits, the hash does not.
    #[error(
        "record {0} does not follow the one before it: it says that one's hash is another; records were replaced"
    )]
    Replaced(u64),
    /// The file begins in the middle.
    #[error(
        "the file begins with record {0}, which is not the first of a file: records before it were removed"
    )]
    Beheaded(u64),
    /// A head is signed by nobody who was named.
    #[error("this head is signed with the key {0}, which is not the one given")]
    Stranger(String),
    /// A head's signature is wrong.
    #[error("the signature of this head is wrong")]
    Forged,
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The chain does not hold the head that was kept elsewhere.
    #[error("the chain does not hold the record {0}: it was cut off at the end, or reckoned anew")]
    NoSuchHead(Hash),
    /// A key was given, and nothing is signed.
    #[error("no head is signed")]
    Unsigned,
    /// There is nothing to check.
    #[error("there is no audit log")]
    Empty,
}

fn place(line: u64) -> String {
    match line {
        0 => String::new(),
        line => format!(":{line}"),
    }
}

fn count(records: u64) -> String {
    match records {
        1 => "1 record is".to_owned(),
        records => format!("{records} records are"),
    }
}

/// What was checked.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many records.
    pub records: u64,
    /// The chain's end.
    pub tip: Option<Tip>,
    /// When the last record was made.
    pub last_time: String,
    /// How many heads were checked, if a key was given.
    pub heads: u64,
    /// Records after the last signed head, if a key was given.
    pub unsigned: u64,
    /// What to know besides.
    pub notes: Vec<String>,
}

/// What is asked of the log.
#[derive(Default)]
pub struct Expected {
    /// Keys that heads may be signed with; heads are not checked if there is none.
    pub keys: Vec<Verifier>,
    /// A record that must be there.
    pub head: Option<Hash>,
}

/// Checks the log whose current file is `path`, with its rotated files.
pub fn verify(path: &Path, expected: &Expected) -> Result<Verified, Finding> {
    let parts = parts(path)?;
    let mut check = Check {
        expected,
        verified: Verified::default(),
        last: None,
        ended_well: true,
        found_head: expected.head.is_none(),
    };
    for part in parts {
        check.file(part)?;
    }
    check.finish(path)
}

/// A file as long as it was when the check began.
struct Part {
    name: String,
    file: File,
    length: u64,
}

/// Opens every file at one moment between two records. Afterwards a running proxy may go on: it is not to
/// wait for a check of a gigabyte.
fn parts(path: &Path) -> Result<Vec<Part>, Finding> {
    // A copy has no lock, and nobody who appends.
    let lock = File::open(lock_path(path));
    let _held = lock.inspect(|lock| {
        rustix::fs::flock(lock, rustix::fs::FlockOperation::LockShared).ok();
    });
    let open = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) => Ok(Part { name, file, length }),
            Err(error) => Err(Finding {
                file: name,
                line: 0,
                fault: error.into(),
            }),
        }
    };
    all_files(path).iter().map(open).collect()
}

struct Check<'a> {
    expected: &'a Expected,
    verified: Verified,
    last: Option<Link>,
    /// Whether the last record before this one ended a process in good order.
    ended_well: bool,
    found_head: bool,
}

impl Check<'_> {
    fn file(&mut self, part: Part) -> Result<(), Finding> {
        let Part { name, file, length } = part;
        let at = |line: u64, fault: Fault| Finding {
            file: name.clone(),
            line,
            fault,
        };
        let mut reader = BufReader::with_capacity(1 << 20, file.take(length));
        let mut text = Vec::new();
        let mut number = 0;
        loop {
            text.clear();
            number += 1;
            let read = reader.read_until(b'\n', &mut text);
            if read.map_err(|error| at(number, error.into()))? == 0 {
                return Ok(());
            }
            let Some(line) = text.strip_suffix(b"\n") else {
                return Err(at(number, Fault::Incomplete));
            };
            let link = Link::read(line).map_err(|flaw| at(number, flaw.into()))?;
            self.link(link, number, &name)
                .map_err(|fault| at(number, fault))?;
        }
    }

    fn link(&mut self, link: Link, line: u64, name: &str) -> Result<(), Fault> {
        let verified = &mut self.verified;
        match &self.last {
            None if link.seq == 1 && link.prev == Tip::NONE.hash => {}
            // Old files go; what is left begins where one file followed another.
            None if line == 1 && link.event == "rotated" => verified.notes.push(format!(
                "{name} begins with record {}: older files are gone",
                link.seq
            )),
            None => return Err(Fault::Beheaded(link.seq)),
            Some(last) if link.before() == last.tip() => {}
            Some(last) if link.seq == last.seq + 1 => return Err(Fault::Replaced(link.seq)),
            Some(last) if link.seq > last.seq => {
                return Err(Fault::Missing {
                    last: last.seq,
                    found: link.seq,
                });
            }
            Some(last) => {
                return Err(Fault::Order {
                    last: last.seq,
                    found: link.seq,
                });
            }
        }
        if link.event == "torn" {
            let kept = link.kept.as_ref().and_then(|kept| kept.as_str());
            verified.notes.push(format!(
                "{name}:{line}: {} octets at the end were no whole record{}; they are in {}",
                link.bytes.unwrap_or_default(),
                match self.ended_well {
                    true => ", although the process had ended in good order",
                    false => "",
                },
                kept.unwrap_or("a file beside it"),
            ));
        }
        if link.event == "head" && !self.expected.keys.is_empty() {
            self.signed(&link)?;
        } else {
            self.verified.unsigned += 1;
        }
        self.found_head |= self.expected.head == Some(link.hash);
        if link.event != "head" {
            self.ended_well = link.event == "stop";
        }
        self.verified.records += 1;
        self.last = Some(link);
        Ok(())
    }

    fn signed(&mut self, head: &Link) -> Result<(), Fault> {
        let named = head.key.as_deref().unwrap_or_default();
        let mut keys = self.expected.keys.iter();
        let Some(key) = keys.find(|key| key.fingerprint == named) else {
            return Err(Fault::Stranger(named.to_owned()));
        };
        if !key.signed(head) {
            return Err(Fault::Forged);
        }
        self.verified.heads += 1;
        self.verified.unsigned = 0;
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<Verified, Finding> {
        let at_end = |fault: Fault| Finding {
            file: path.display().to_string(),
            line: 0,
            fault,
        };
        let Some(last) = self.last else {
            return Err(at_end(Fault::Empty));
        };
        if let (false, Some(head)) = (self.found_head, self.expected.head) {
            return Err(at_end(Fault::NoSuchHead(head)));
        }
        if !self.expected.keys.is_empty() && self.verified.heads == 0 {
            return Err(at_end(Fault::Unsigned));
        }
        Ok(Verified {
            tip: Some(last.tip()),
            last_time: last.time,
            ..self.verified
        })
    }
}

#[cfg(test)]
#[path = "audit_verify_tests.rs"]
mod tests;
