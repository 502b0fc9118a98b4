//! Owns reading the audit log back: records in their order, from some moment on.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::audit_file::all_files;

/// Gives every record since `since` to `each`, with its line as it stands. What is no record is passed
/// over: `tollgate audit verify` tells of it.
pub fn read(
    path: &Path,
    since: Option<Timestamp>,
    each: impl FnMut(&str, Value),
) -> io::Result<()> {
    read_newest(path, since, u64::MAX, each)
}

/// The same of the newest files alone, so many octets of them at most.
pub fn read_newest(
    path: &Path,
    since: Option<Timestamp>,
    most: u64,
    mut each: impl FnMut(&str, Value),
) -> io::Result<()> {
    let mut files = all_files(path);
    let mut octets = 0_u64;
    let newest = files.iter().rev().take_while(|file| {
        octets += std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        octets <= most
    });
    let kept = newest.count();
    files.drain(..files.len() - kept);
    // The last file that begins before `since` is the first that may hold something.
    let begins_before = |file: &std::path::PathBuf| {
        since.is_some_and(|since| begin(file).is_some_and(|begin| begin <= since))
    };
    let first = files.iter().rposition(begins_before).unwrap_or(0);
    for file in &files[first..] {
        for line in BufReader::new(File::open(file)?).lines() {
            let line = line?;
            let Ok(record) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let time = moment(&record);
            if time.is_some() && since.is_none_or(|since| time >= Some(since)) {
                each(&line, record);
            }
        }
    }
    Ok(())
}

/// When a record was made.
pub fn moment(record: &Value) -> Option<Timestamp> {
    record["time"].as_str()?.parse().ok()
}

fn begin(file: &Path) -> Option<Timestamp> {
    let mut line = String::new();
    BufReader::new(File::open(file).ok()?)
        .read_line(&mut line)
        .ok()?;
    moment(&serde_json::from_str(&line).ok()?)
}
