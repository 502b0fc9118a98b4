use std::path::Path;

use super::super::audit_key::tests::PRIVATE;
use super::super::audit_verify::{Expected, verify};
use super::*;
use crate::types::secret::Secret;

fn terms(path: &Path, on_failure: OnAuditFailure) -> AuditTerms {
    AuditTerms {
        file: FileTerms {
            path: path.to_path_buf(),
            size: 1 << 20,
            age: Duration::from_secs(3600),
            keep: 10,
        },
        exchanges: AuditExchanges::Denied,
        on_failure,
        signer: None,
        head_records: 1000,
        head_every: Duration::from_secs(60),
    }
}

fn first() -> Event {
    Event::Lost { records: 0 }
}

#[test]
fn everything_handed_over_is_written_by_the_time_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = AuditLog::start(terms(&path, OnAuditFailure::Continue), first()).unwrap();
    let hands: Vec<_> = (0..8)
        .map(|_| {
            let log = log.clone();
            std::thread::spawn(move || {
                for records in 0..200 {
                    log.note(Event::Lost { records });
                }
            })
        })
        .collect();
    for hand in hands {
        hand.join().unwrap();
    }
    log.close();
    let verified = verify(&path, &Expected::default()).unwrap();
    // The first, what was handed over, and the stop.
    assert_eq!(verified.records, 1 + 1600 + 1);
    let status = log.status().unwrap();
    assert_eq!((status.lost, status.tip), (0, verified.tip));
}

#[tokio::test]
async fn a_witnessed_event_is_in_the_file_before_anything_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = AuditLog::start(terms(&path, OnAuditFailure::Refuse), first()).unwrap();
    for count in 1..20 {
        log.witness(Event::Lost { records: 1 }).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1 + count);
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_kept_and_written_later_unless_it_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit/audit.jsonl");
    let log = AuditLog::start(terms(&path, OnAuditFailure::Refuse), first()).unwrap();
    // A file in the place of the directory: nothing can be opened there.
    let away = dir.path().join("away");
    std::fs::rename(dir.path().join("audit"), &away).unwrap();
    std::fs::write(dir.path().join("audit"), "").unwrap();
    log.note(Event::Lost { records: 71 });
    assert_eq!(
        log.witness(Event::Lost { records: 72 }).await,
        Err(Unrecorded)
    );
    assert!(log.status().unwrap().trouble.is_some());
    std::fs::remove_file(dir.path().join("audit")).unwrap();
    std::fs::rename(&away, dir.path().join("audit")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.status().unwrap().trouble.is_some() {
        assert!(Instant::now() < deadline, "{:?}", log.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    log.witness(Event::Lost { records: 73 }).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("\"records\":71") && text.contains("\"records\":73"),
        "{text}"
    );
    assert!(!text.contains("\"records\":72"), "{text}");
    verify(&path, &Expected::default()).unwrap();
}

#[test]
fn a_start_without_a_log_is_refused_only_where_the_operator_wants_that() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file/audit.jsonl");
    std::fs::write(dir.path().join("file"), "").unwrap();
    let refused = AuditLog::start(terms(&path, OnAuditFailure::Refuse), first());
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("audit.jsonl"), "{text}");
    let log = AuditLog::start(terms(&path, OnAuditFailure::Continue), first()).unwrap();
    assert!(log.status().unwrap().trouble.is_some());
    std::fs::remove_file(dir.path().join("file")).unwrap();
    log.close();
    assert_eq!(verify(&path, &Expected::default()).unwrap().records, 2);
}

/// A log whose thread is the test, and what it keeps its figures in.
fn by_hand(terms: AuditTerms) -> (Writer, Books) {
    let writer = Writer {
        file: AuditFile::new(terms.file),
        signer: terms.signer,
        head_records: terms.head_records,
        head_every: terms.head_every,
        kept: vec![(SystemTime::now(), first())],
        told_lost: 0,
        unsigned: 0,
        unsigned_since: None,
        unsynced_since: None,
        retry: None,
        shared: Weak::new(),
    };
    (writer, Books::default())
}

#[test]
fn a_head_that_cannot_be_written_is_tried_now_and_then_and_not_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit/audit.jsonl");
    let mut signed = terms(&path, OnAuditFailure::Continue);
    let pem = Secret::from(PRIVATE.to_owned());
    signed.signer = Some(Signer::parse(&pem).unwrap());
    signed.head_every = Duration::ZERO;
    let (mut writer, books) = by_hand(signed);
    writer.write(&books).unwrap();
    let away = dir.path().join("away");
    std::fs::rename(dir.path().join("audit"), &away).unwrap();
    std::fs::write(dir.path().join("audit"), "").unwrap();
    writer.keep_up(&books);
    assert!(books.state().trouble.is_some());
    let due = writer.due().unwrap();
    let pause = due.saturating_duration_since(Instant::now());
    assert!(pause > RETRY / 2, "{pause:?}");
    let retry = writer.retry;
    writer.keep_up(&books);
    assert_eq!(writer.retry, retry, "it was tried again at once");
    std::fs::remove_file(dir.path().join("audit")).unwrap();
    std::fs::rename(&away, dir.path().join("audit")).unwrap();
    writer.retry = Some(Instant::now());
    writer.keep_up(&books);
    assert!(books.state().trouble.is_none());
    assert!(verify(&path, &Expected::default()).unwrap().records >= 2);
}

#[test]
fn a_log_that_takes_nothing_is_not_waited_for_longer_than_was_said() {
    let (queue, _held) = sync_channel(1);
    let log = AuditLog(Some(Arc::new(Shared {
        queue,
        exchanges: AuditExchanges::Denied,
        on_failure: OnAuditFailure::Continue,
        books: Books::default(),
    })));
    log.note(first());
    let begun = Instant::now();
    log.close();
    assert!(begun.elapsed() >= CLOSING);
}

#[test]
fn a_log_whose_thread_is_gone_says_so() {
    let (queue, messages) = sync_channel(1);
    let shared = Arc::new(Shared {
        queue,
        exchanges: AuditExchanges::Denied,
        on_failure: OnAuditFailure::Continue,
        books: Books::default(),
    });
    let end = ThreadEnd(Arc::downgrade(&shared));
    let log = AuditLog(Some(shared));
    assert!(log.status().unwrap().trouble.is_none());
    let thread = std::thread::spawn(move || {
        let _end = (end, messages);
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    let trouble = log.status().unwrap().trouble.unwrap().to_string();
    assert!(trouble.contains("start this process again"), "{trouble}");
}
