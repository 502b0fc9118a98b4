//! The journal gives back what was written whole, in its order, and nothing else.

use proptest::prelude::*;

use super::*;

fn closed(journal: &mut Journal, request: &str) {
    let id = super::super::row::IdRow {
        request,
        attempt: 1,
    };
    journal.append(|give| give(Row::Closed(id))).unwrap();
}

/// What a process that starts finds after record `after`: the requests, and the last number.
fn found(path: &Path, after: u64) -> (Vec<String>, u64) {
    let mut requests = Vec::new();
    let last = replay(path, after, |record| {
        for row in decode(record) {
            match row.unwrap() {
                Row::Closed(id) => requests.push(id.request.to_owned()),
                other => panic!("{other:?}"),
            }
        }
        Ok::<_, io::Error>(())
    });
    (requests, last.unwrap())
}

#[test]
fn what_was_written_is_found_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut journal = Journal::start(&path, 7).unwrap();
    assert!(is_empty(&path));
    for request in ["a", "b", "c"] {
        closed(&mut journal, request);
    }
    assert!(!is_empty(&path));
    assert_eq!(
        found(&path, 7),
        (vec!["a".into(), "b".into(), "c".into()], 10)
    );
    assert_eq!(
        found(&path, 9),
        (vec!["c".into()], 10),
        "the tables have the others"
    );
    assert_eq!(found(&path, 10), (vec![], 10));
}

#[test]
fn a_journal_in_another_form_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut journal = Journal::start(&path, 0).unwrap();
    closed(&mut journal, "a");
    let file = name(&path, 0);
    let mut octets = std::fs::read(&file).unwrap();
    let length = u32::from_le_bytes(octets[..4].try_into().unwrap()) as usize;
    octets[HEAD] = FORM + 1;
    let check = crc32fast::hash(&octets[8..HEAD + length]);
    octets[4..8].copy_from_slice(&check.to_le_bytes());
    std::fs::write(&file, &octets).unwrap();
    let never = |_: &[u8]| panic!("its rows are given out");
    let error: io::Error = replay(&path, 0, never).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("rows of form 2"), "{said}");
    assert!(said.contains("start the version that wrote it"), "{said}");
    assert_eq!(found(&path, 1), (vec![], 1), "the tables have that");
}

#[test]
fn the_two_files_are_read_in_the_order_of_their_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut journal = Journal::start(&path, 0).unwrap();
    assert!(journal.turn().is_none(), "a short file is not left");
    let long = "x".repeat(1 << 20);
    for _ in 0..5 {
        closed(&mut journal, &long);
    }
    let old = journal.turn().unwrap();
    closed(&mut journal, "later");
    assert!(journal.turn().is_none(), "the other is still needed");
    let (requests, last) = found(&path, 4);
    assert_eq!((requests, last), (vec![long.clone(), "later".into()], 6));
    empty(&journal.file(&old)).unwrap();
    journal.has_spare();
    for _ in 0..5 {
        closed(&mut journal, &long);
    }
    journal.turn().unwrap();
    closed(&mut journal, "last");
    let (requests, last) = found(&path, 10);
    assert_eq!((requests, last), (vec![long, "last".into()], 12));
}

#[test]
fn what_builds_on_something_that_is_lost_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut journal = Journal::start(&path, 0).unwrap();
    for _ in 0..5 {
        closed(&mut journal, &"x".repeat(1 << 20));
    }
    journal.turn().unwrap();
    closed(&mut journal, "later");
    // The machine's end left the second file alone.
    empty(&journal.files()[0]).unwrap();
    assert_eq!(found(&path, 3), (vec![], 3));
    assert_eq!(found(&path, 5), (vec!["later".into()], 6));
}

#[test]
fn a_file_of_the_journal_that_was_taken_away_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let journal = Journal::start(&path, 0).unwrap();
    assert!(!journal.is_gone());
    // Moved, replaced by another, removed: whichever of the two is written now.
    for index in [0, 1] {
        let (place, aside) = (name(&path, index), dir.path().join("aside"));
        std::fs::rename(&place, &aside).unwrap();
        assert!(journal.is_gone(), "{index}");
        std::fs::write(&place, "").unwrap();
        assert!(journal.is_gone(), "{index}");
        std::fs::rename(&aside, &place).unwrap();
        assert!(!journal.is_gone(), "{index}");
    }
    std::fs::remove_file(name(&path, 0)).unwrap();
    assert!(journal.is_gone());
}

#[test]
fn a_record_that_is_longer_than_a_file_may_be_has_one_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut journal = Journal::start(&path, 0).unwrap();
    journal.most = 1000;
    closed(&mut journal, "short");
    assert!(journal.turn().is_none());
    let long = "x".repeat(4000);
    let id = super::super::row::IdRow {
        request: &long,
        attempt: 1,
    };
    let refused = journal.append(|give| give(Row::Closed(id))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    assert!(journal.is_full());
    journal.turn().unwrap();
    closed(&mut journal, &long);
    assert_eq!(found(&path, 0), (vec!["short".into(), long], 2));
}

proptest! {
    /// The machine's end may leave any part of what was written last.
    #[test]
    fn a_cut_or_broken_end_hides_nothing_before_it(
        cut in 0usize..200,
        flip in proptest::option::of((0usize..200, 1u8..)),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let mut journal = Journal::start(&path, 0).unwrap();
        let mut ends = Vec::new();
        for request in ["a", "bb", "ccc", "dddd"] {
            closed(&mut journal, request);
            ends.push(usize::try_from(journal.at).unwrap());
        }
        let file = name(&path, 0);
        let mut octets = std::fs::read(&file).unwrap();
        octets.truncate(cut);
        let mut whole = octets.len();
        if let Some((at, bits)) = flip && at < octets.len() {
            octets[at] ^= bits;
            whole = at;
        }
        std::fs::write(&file, &octets).unwrap();
        let kept = ends.iter().filter(|end| **end <= whole).count();
        prop_assert_eq!(found(&path, 0).0.len(), kept);
    }
}
