//! Owns the ledger's journal: what was changed since the tables were last written, in the order it was.
//!
//! A record is written with one call into the operating system's cache: from then on it outlives the end
//! of the process, and after a [sync](Journal::files) that of the machine. Two files take turns, so that one
//! can be emptied while the other grows.
//!
//! A record: the length of what follows (4 octets, little-endian), its CRC-32 (4), its number (8), the form that rows
//! have in it (1), and rows in the form of postcard. Numbers grow by one; the first that does not, or does not
//! check, ends the journal: it was cut by the machine's end, or never completed.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::row::Row;
use super::sqlite_file::InPlace;

const HEAD: usize = 16;

/// The form of rows: another number for every change of what [`Row`] has.
const FORM: u8 = 1;

/// A file of so many octets is left for the other once the tables have what is in that.
const LONG: u64 = 4 << 20;

/// No file grows further: the tables have not been written for a long time. A record that is longer by itself
/// has a file for itself.
const MOST: u64 = 256 << 20;

/// A buffer that one record made larger is not kept for the next.
const BUFFER: usize = 1 << 20;

/// The journal of one ledger, open to be written.
#[derive(Debug)]
pub struct Journal {
    files: [Arc<File>; 2],
    places: [InPlace; 2],
    current: usize,
    at: u64,
    number: u64,
    /// The other file holds nothing that is still needed.
    spare: bool,
    /// A record did not fit behind what is in this one.
    full: bool,
    /// See [`MOST`].
    pub(super) most: u64,
    record: Vec<u8>,
}

/// The file that is to be emptied once the tables have what is in it.
#[derive(Debug)]
pub struct Turned(usize);

impl Journal {
    /// Opens the journal beside the ledger at `path`, and empties it: the tables have everything up to
    /// `number`.
    pub fn start(path: &Path, number: u64) -> io::Result<Self> {
        let open = |index| {
            let file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(name(path, index))?;
            make_room(&file);
            Ok::<_, io::Error>(Arc::new(file))
        };
        let place = |index| InPlace::of(name(path, index));
        Ok(Self {
            files: [open(0)?, open(1)?],
            places: [place(0)?, place(1)?],
            current: 0,
            at: 0,
            number,
            spare: true,
            full: false,
            most: MOST,
            record: Vec::new(),
        })
    }

    /// Writes one record of these rows. What could not be written whole is as if it had not been begun.
    pub fn append<'a>(&mut self, rows: impl FnOnce(&mut dyn FnMut(Row<'a>))) -> io::Result<()> {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        record.resize(HEAD, 0);
        record.push(FORM);
        let mut record = encode(record, rows)?;
        self.write(&mut record)?;
        if record.capacity() <= BUFFER {
            self.record = record;
        }
        Ok(())
    }

    fn write(&mut self, record: &mut [u8]) -> io::Result<()> {
        let number = self.number + 1;
        let length = u32::try_from(record.len() - HEAD)
            .map_err(|_| io::Error::new(ErrorKind::StorageFull, "too much changed at once"))?;
        record[8..HEAD].copy_from_slice(&number.to_le_bytes());
        let check = crc32fast::hash(&record[8..]);
        record[..4].copy_from_slice(&length.to_le_bytes());
        record[4..8].copy_from_slice(&check.to_le_bytes());
        let file = &self.files[self.current];
        let end = self.at + record.len() as u64;
        if end > self.most && self.at > 0 {
            self.full = true;
            return Err(io::Error::new(
                ErrorKind::StorageFull,
                "its tables could not be written for a long time",
            ));
        }
        file.write_all_at(record, self.at)?;
        self.at = end;
        self.number = number;
        Ok(())
    }

    /// The number of the latest record.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What has to be synced for all records to outlive the end of the machine.
    pub fn files(&self) -> [Arc<File>; 2] {
        self.files.clone()
    }

    /// Whether a record waits for the other file.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Goes on in the other file if this one is long, or too long for what comes next, and the other is empty. What
    /// this one holds must be in the tables, and on the disk, before it is [emptied](empty).
    pub fn turn(&mut self) -> Option<Turned> {
        if (self.at < LONG && !self.full) || !self.spare {
            return None;
        }
        self.full = false;
        let old = self.current;
        self.current = 1 - old;
        self.at = 0;
        self.spare = false;
        Some(Turned(old))
    }

    /// A file that is not needed any more, to be emptied by whoever has the time.
    pub fn file(&self, turned: &Turned) -> Arc<File> {
        self.files[turned.0].clone()
    }

    /// It was emptied, and can be used again.
    pub fn has_spare(&mut self) {
        self.spare = true;
    }

    /// Whether somebody took a file of it away: whoever reads it after this process would not find it.
    pub fn is_gone(&self) -> bool {
        !self.places.iter().all(InPlace::is_there)
    }
}

/// Empties a file.
pub fn empty(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    make_room(file);
    Ok(())
}

/// A write is cheaper where the file need not grow for it. The room reads as zeros, which are no record. Where
/// there is none, or the filesystem does not know how, the file grows as it is written.
fn make_room(file: &File) {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, LONG).ok();
}

fn encode<'a>(record: Vec<u8>, rows: impl FnOnce(&mut dyn FnMut(Row<'a>))) -> io::Result<Vec<u8>> {
    let mut outcome = Ok(record);
    rows(&mut |row| {
        let next = std::mem::replace(&mut outcome, Err(postcard::Error::SerializeBufferFull));
        outcome = next.and_then(|record| postcard::to_extend(&row, record));
    });
    outcome.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// The rows of a record, as far as it can be read.
pub fn decode(mut record: &[u8]) -> impl Iterator<Item = Result<Row<'_>, postcard::Error>> {
    std::iter::from_fn(move || {
        if record.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(record) {
            Ok((row, rest)) => {
                record = rest;
                Some(Ok(row))
            }
            Err(error) => {
                record = &[];
                Some(Err(error))
            }
        }
    })
}

/// Rows as they stand in a record, to be taken elsewhere.
pub fn rows_as_octets<'a>(rows: impl FnOnce(&mut dyn FnMut(Row<'a>))) -> io::Result<Vec<u8>> {
    encode(Vec::new(), rows)
}

/// Reads the records after number `after` of the journal beside the ledger at `path`, in their order. The
/// number of the last is returned.
pub fn replay<E: From<io::Error>>(
    path: &Path,
    after: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut files = Vec::new();
    for index in [0, 1] {
        match std::fs::read(name(path, index)) {
            Ok(octets) => files.push(octets),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let first = |octets: &Vec<u8>| record(octets).map(|(number, ..)| number);
    files.sort_by_key(first);
    let mut last = after;
    for octets in &files {
        let mut rest = &octets[..];
        let mut expected = None;
        while let Some((number, rows, next)) = record(rest) {
            if expected.is_some_and(|expected| expected != number) {
                break;
            }
            expected = Some(number + 1);
            rest = next;
            if number > last + 1 {
                // What lies between is lost, and with it what the rest builds on.
                return Ok(last);
            }
            if number > last {
                each(in_our_form(rows)?)?;
                last = number;
            }
        }
    }
    Ok(last)
}

/// Whether there is nothing to read.
pub fn is_empty(path: &Path) -> bool {
    let empty = |index| {
        let mut head = [0; HEAD];
        let read = File::open(name(path, index)).and_then(|file| file.read_at(&mut head, 0));
        !read.is_ok_and(|read| read == HEAD) || head == [0; HEAD]
    };
    [0, 1].into_iter().all(empty)
}

/// The first record: its number, its rows, and what follows it.
fn record(octets: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<4>()?;
    let (check, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (checked, rest) = rest.split_at_checked(length.checked_add(8)?)?;
    if crc32fast::hash(checked) != u32::from_le_bytes(*check) {
        return None;
    }
    let (number, rows) = checked.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rows, rest))
}

/// The rows, if they are in the form that is written here.
fn in_our_form(record: &[u8]) -> io::Result<&[u8]> {
    match record.split_first() {
        Some((&FORM, rows)) => Ok(rows),
        form => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!(
                "its journal has rows of form {}, and this version of tollgate reads form {FORM}: start the version that wrote it once, and stop it",
                form.map_or(0, |(form, _)| *form)
            ),
        )),
    }
}

fn name(path: &Path, index: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".journal-{}", index + 1));
    name.into()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
