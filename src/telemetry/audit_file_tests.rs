use std::os::unix::fs::PermissionsExt;

use super::super::audit_verify::{Expected, Verified, verify};
use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("audit/audit.jsonl")
    }

    /// Another process's view of the same files.
    fn open(&self) -> AuditFile {
        self.with(1 << 20, 1000)
    }

    fn with(&self, size: u64, keep: usize) -> AuditFile {
        AuditFile::new(FileTerms {
            path: self.path(),
            size,
            age: Duration::from_secs(3600),
            keep,
        })
    }

    fn verified(&self) -> Verified {
        verify(&self.path(), &Expected::default()).unwrap()
    }

    fn events(&self) -> Vec<String> {
        let mut events = Vec::new();
        super::super::audit_read::read(&self.path(), None, |_, record| {
            events.push(record["event"].as_str().unwrap().to_owned());
        })
        .unwrap();
        events
    }
}

fn event(number: u64) -> (SystemTime, Event) {
    (SystemTime::now(), Event::Lost { records: number })
}

fn append(file: &mut AuditFile, count: u64) -> Tip {
    let events: Vec<_> = (0..count).map(event).collect();
    file.append(SystemTime::now(), &events, None).unwrap()
}

#[test]
fn the_chain_goes_on_where_the_last_process_left_it() {
    let place = Place::new();
    append(&mut place.open(), 3);
    let tip = append(&mut place.open(), 2);
    assert_eq!(tip.seq, 5);
    let verified = place.verified();
    assert_eq!((verified.records, verified.tip), (5, Some(tip)));
    let mode = std::fs::metadata(place.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_end_that_is_no_whole_record_is_put_aside_and_told_of() {
    for torn in [
        &b"{\"seq\":4,\"time\":\"2026"[..],
        b"\0\0\0\0\n\0\0",
        b"nonsense\nmore\n",
    ] {
        let place = Place::new();
        append(&mut place.open(), 3);
        let mut file = OpenOptions::new().append(true).open(place.path()).unwrap();
        file.write_all(torn).unwrap();
        append(&mut place.open(), 1);
        assert_eq!(place.events(), ["lost", "lost", "lost", "torn", "lost"]);
        let verified = place.verified();
        assert!(
            verified.notes[0].contains(&format!("{} octets", torn.len())),
            "{:?}",
            verified.notes
        );
        let kept = std::fs::read_dir(place.path().parent().unwrap()).unwrap();
        let kept: Vec<PathBuf> = kept
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("torn-"))
            .collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(std::fs::read(&kept[0]).unwrap(), torn);
    }
}

#[test]
fn a_full_file_is_rotated_and_the_next_one_names_it() {
    let place = Place::new();
    let mut file = place.with(600, 1000);
    for _ in 0..10 {
        append(&mut file, 1);
    }
    let rotated = rotated_files(&place.path());
    assert!(rotated.len() >= 3, "{rotated:?}");
    for (first, path) in &rotated {
        let text = std::fs::read_to_string(path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["seq"], *first);
        assert!(*first == 1 || line["event"] == "rotated", "{line}");
    }
    let told = place.events().iter().filter(|e| *e == "lost").count();
    assert_eq!(told, 10);
    assert_eq!(place.verified().records as usize, 10 + rotated.len());
    // One that was rotated just before a crash is found as well.
    std::fs::rename(place.path(), rotated_name(&place.path(), 999)).unwrap();
    append(&mut place.open(), 1);
    place.verified();
}

#[test]
fn an_old_file_is_rotated_by_its_first_record() {
    let place = Place::new();
    let mut file = place.open();
    append(&mut file, 1);
    let later = SystemTime::now() + Duration::from_secs(3601);
    file.append(later, &[event(1)], None).unwrap();
    assert_eq!(place.events(), ["lost", "rotated", "lost"]);
    // Also where another process began it.
    let later = later + Duration::from_secs(3601);
    place.open().append(later, &[event(1)], None).unwrap();
    assert_eq!(rotated_files(&place.path()).len(), 2);
    place.verified();
}

#[test]
fn the_oldest_files_go_and_what_is_left_can_be_checked() {
    let place = Place::new();
    let mut file = place.with(1, 2);
    for _ in 0..6 {
        append(&mut file, 1);
    }
    assert_eq!(rotated_files(&place.path()).len(), 2);
    let verified = place.verified();
    assert!(
        verified.notes[0].contains("older files are gone"),
        "{verified:?}"
    );
    assert!(verified.tip.unwrap().seq > verified.records);
}

#[test]
fn a_file_that_was_taken_away_is_followed_by_a_new_one_of_the_same_chain() {
    let place = Place::new();
    let mut file = place.open();
    let tip = append(&mut file, 3);
    std::fs::remove_file(place.path()).unwrap();
    let after = append(&mut file, 1);
    assert_eq!(
        after.seq,
        tip.seq + 2,
        "the record of the move, and the event"
    );
    assert_eq!(place.events(), ["rotated", "lost"]);
    place.verified();
}

#[test]
fn records_that_are_cut_off_under_a_running_process_are_told_of() {
    let place = Place::new();
    let mut file = place.open();
    append(&mut file, 1);
    let length = std::fs::metadata(place.path()).unwrap().len();
    append(&mut file, 4);
    let cut = OpenOptions::new().write(true).open(place.path()).unwrap();
    cut.set_len(length).unwrap();
    append(&mut file, 1);
    assert_eq!(place.events(), ["lost", "cut", "lost"]);
    let text = std::fs::read_to_string(place.path()).unwrap();
    assert!(text.contains("\"event\":\"cut\",\"records\":4"), "{text}");
}

#[test]
fn several_processes_append_to_one_chain() {
    let place = Place::new();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let mut file = place.with(4000, 1000);
            std::thread::spawn(move || {
                for _ in 0..50 {
                    append(&mut file, 2);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let lost = place.events().iter().filter(|e| *e == "lost").count();
    assert_eq!(lost, 400);
    place.verified();
}

#[test]
fn a_failure_names_the_file_and_the_cause() {
    let place = Place::new();
    std::fs::create_dir_all(place.path()).unwrap();
    let mut file = place.open();
    let error = file
        .append(SystemTime::now(), &[event(1)], None)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("audit.jsonl") && text.contains("directory"),
        "{text}"
    );
}
