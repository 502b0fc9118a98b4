use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::super::audit_event::Event;
use super::super::audit_file::{AuditFile, FileTerms};
use super::super::audit_key::Signer;
use super::super::audit_key::tests::{PRIVATE, PUBLIC};
use super::*;
use crate::types::secret::Secret;

/// Two files of records with signed heads.
fn log(dir: &Path) -> PathBuf {
    let path = dir.join("audit.jsonl");
    let mut file = AuditFile::new(FileTerms {
        path: path.clone(),
        size: 2500,
        age: Duration::from_secs(3600),
        keep: 10,
    });
    let signer = Signer::parse(&Secret::from(PRIVATE.to_owned())).unwrap();
    for number in 0..12 {
        let event = (SystemTime::now(), Event::Lost { records: number });
        let signer = (number % 5 == 4).then_some(&signer);
        file.append(SystemTime::now(), &[event], signer).unwrap();
    }
    path
}

fn keys() -> Vec<Verifier> {
    vec![Verifier::parse(PUBLIC.as_bytes()).unwrap()]
}

/// What is done to the lines of the whole log.
type Change = fn(&mut Vec<String>);

fn tampered(change: Change, expected: &Expected) -> Result<Verified, Finding> {
    let dir = tempfile::tempdir().unwrap();
    let path = log(dir.path());
    let files = all_files(&path);
    assert!(files.len() >= 2, "{files:?}");
    let texts = files.iter().map(|f| std::fs::read_to_string(f).unwrap());
    let mut lines: Vec<String> = Vec::new();
    let mut ends = Vec::new();
    for text in texts {
        lines.extend(text.lines().map(ToOwned::to_owned));
        ends.push(lines.len());
    }
    // The change is made where both files are seen as one; the first keeps its length.
    change(&mut lines);
    let at = ends[0].min(lines.len());
    let write = |file: &PathBuf, lines: &[String]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(file, text).unwrap();
    };
    write(&files[0], &lines[..at]);
    write(&files[1], &lines[at..]);
    verify(&path, expected)
}

#[test]
fn whatever_is_done_to_the_lines_is_found_where_it_was_done() {
    let cases: [(&str, Change, &str); 12] = [
        (
            "a value changed",
            |l| l[4] = l[4].replace("\"records\":", "\"records\":1"),
            ":5: this record was changed",
        ),
        (
            "a value changed and its hash reckoned anew",
            |l| {
                let (content, _) = l[4].rsplit_once(",\"hash\"").unwrap();
                let content = format!("{}}}", content.replace("\"records\":", "\"records\":1"));
                let hash = Hash::of(content.as_bytes());
                l[4] = format!("{},\"hash\":\"{hash}\"}}", &content[..content.len() - 1]);
            },
            "record 6 does not follow the one before it",
        ),
        (
            "a line dropped",
            |l| drop(l.remove(4)),
            "record 6 follows record 4: 1 record is missing",
        ),
        (
            "two dropped",
            |l| drop(l.drain(4..6)),
            "2 records are missing",
        ),
        ("two swapped", |l| l.swap(4, 5), "record 6 follows record 4"),
        (
            "one repeated",
            |l| l.insert(5, l[4].clone()),
            "record 5 follows record 5",
        ),
        (
            "one put in",
            |l| l.insert(5, "{}".to_owned()),
            "this is no audit record",
        ),
        (
            "an old one put in",
            |l| l.insert(8, l[1].clone()),
            "record 2 follows record 8",
        ),
        (
            "the first dropped",
            |l| drop(l.remove(0)),
            ":1: the file begins with record 2",
        ),
        (
            "an empty line",
            |l| l.insert(3, String::new()),
            ":4: this is no audit record",
        ),
        (
            "cut within a line",
            |l| l[6].truncate(40),
            ":7: this is no audit record",
        ),
        (
            "a hash in capitals",
            |l| l[6] = l[6].to_uppercase(),
            ":7: this is no audit record",
        ),
    ];
    for (what, change, told) in cases {
        let finding = tampered(change, &Expected::default());
        let finding = finding.map(drop).expect_err(what).to_string();
        assert!(finding.contains(told), "{what}: {finding}");
        assert!(finding.contains(".jsonl:"), "{what}: {finding}");
    }
    tampered(|_| (), &Expected::default()).unwrap();
}

#[test]
fn a_cut_at_the_end_is_found_by_a_head_that_was_kept_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(dir.path());
    let whole = verify(&path, &Expected::default()).unwrap();
    let expect = |head| Expected {
        head,
        ..Expected::default()
    };
    let head = whole.tip.map(|tip| tip.hash);
    verify(&path, &expect(head)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = &text[..text.trim_end().rfind('\n').unwrap() + 1];
    std::fs::write(&path, cut).unwrap();
    // By itself it looks whole: that is why there are heads.
    verify(&path, &Expected::default()).unwrap();
    let finding = verify(&path, &expect(head)).unwrap_err().to_string();
    assert!(finding.contains("cut off at the end"), "{finding}");
    // An earlier head is still there.
    let earlier = Link::read(cut.lines().last().unwrap().as_bytes()).unwrap();
    verify(&path, &expect(Some(earlier.hash))).unwrap();
}

#[test]
fn a_chain_that_was_reckoned_anew_has_no_right_signatures() {
    let anew: Change = |lines| {
        let mut tip = Tip::NONE;
        lines.remove(2);
        for line in lines {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            let members = record.as_object_mut().unwrap();
            for name in ["hash", "prev", "seq", "time"] {
                members.remove(name);
            }
            let mut text = Vec::new();
            super::super::audit_line::seal(&mut text, &mut tip, SystemTime::now(), &record)
                .unwrap();
            *line = String::from_utf8(text).unwrap().trim_end().to_owned();
        }
    };
    let keys = Expected {
        keys: keys(),
        ..Expected::default()
    };
    assert_eq!(tampered(|_| (), &keys).unwrap().heads, 2);
    let finding = tampered(anew, &keys).map(drop).unwrap_err().to_string();
    assert!(
        finding.contains("the signature of this head is wrong"),
        "{finding}"
    );
}

#[test]
fn heads_of_another_key_and_logs_without_heads_do_not_pass_for_signed() {
    const OTHER: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAu+sU/XGhmPphu6e9hxn8l/EzrLLhHNkAr/IWUykWJIo=
-----END PUBLIC KEY-----
";
    let other = || Expected {
        keys: vec![Verifier::parse(OTHER.as_bytes()).unwrap()],
        ..Expected::default()
    };
    let finding = tampered(|_| (), &other())
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(finding.contains("which is not the one given"), "{finding}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut file = AuditFile::new(FileTerms {
        path: path.clone(),
        size: 1 << 20,
        age: Duration::from_secs(3600),
        keep: 1,
    });
    let event = (SystemTime::now(), Event::Lost { records: 1 });
    file.append(SystemTime::now(), &[event], None).unwrap();
    let finding = verify(&path, &other()).unwrap_err().to_string();
    assert!(finding.contains("no head is signed"), "{finding}");
    std::fs::remove_file(&path).unwrap();
    let finding = verify(&path, &other()).unwrap_err().to_string();
    assert!(finding.contains("there is no audit log"), "{finding}");
}

#[test]
fn every_octet_of_a_log_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(dir.path());
    let file = &all_files(&path)[0];
    let bytes = std::fs::read(file).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(file, &changed).unwrap();
        assert!(verify(&path, &Expected::default()).is_err(), "octet {at}");
    }
}
