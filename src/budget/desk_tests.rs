//! When the desk sends for the thread that has the tables, and when it leaves them alone.

use std::sync::mpsc::{Receiver, channel};

use tokio::sync::oneshot;

use super::*;
use crate::budget::sample::{ask, settlement};
use crate::budget::sqlite_file::LedgerFile;

/// A desk without a thread, what it sends to that, and what it stands on.
struct Scene {
    desk: Desk,
    bell: Receiver<Order>,
    _file: LedgerFile,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let file = LedgerFile::open(&path, None).unwrap();
        let journal = Journal::start(&path, 0).unwrap();
        let (bell, heard) = channel();
        Self {
            desk: Desk::new(Book::default(), journal, file.place.clone(), bell),
            bell: heard,
            _file: file,
            _dir: dir,
        }
    }

    /// A whole call with so many rows.
    fn spend(&mut self, request: &str, rows: usize) {
        let (reply, _answer) = oneshot::channel();
        self.desk
            .take(Order::Reserve(Box::new(ask(request, 1, &[])), reply));
        let mut settlement = settlement(request, 1);
        settlement.charges = vec![settlement.charges.remove(0); rows];
        let (reply, _answer) = oneshot::channel();
        self.desk.take(Order::Settle(Box::new(settlement), reply));
    }

    /// How often the thread was sent for since.
    fn rung(&self) -> usize {
        self.bell.try_iter().count()
    }
}

#[test]
fn the_thread_is_sent_for_once_when_there_is_something_and_once_when_there_is_much() {
    let mut scene = Scene::new();
    for number in 0..136 {
        scene.spend(&format!("r{number}"), 30);
    }
    assert_eq!((scene.desk.pending.entries.len(), scene.rung()), (4080, 1));
    // From 4080 over 4096.
    for number in 200..210 {
        scene.spend(&format!("r{number}"), 30);
    }
    assert_eq!(
        (scene.desk.fold_in(), scene.rung()),
        (Some(Duration::ZERO), 1)
    );
}

#[test]
fn tables_that_could_not_be_written_are_left_alone_for_a_while() {
    let mut scene = Scene::new();
    for number in 0..70 {
        scene.spend(&format!("r{number}"), 60);
    }
    assert_eq!(scene.desk.fold_in(), Some(Duration::ZERO));
    let batch = scene.desk.batch().unwrap().unwrap();
    assert!(
        batch.changes.holds.is_empty(),
        "they came and went without the tables"
    );
    let error = LedgerError::new("busy".to_owned());
    scene.desk.unfolded(batch, &error);
    scene.rung();
    for number in 100..110 {
        scene.spend(&format!("r{number}"), 1);
    }
    assert_eq!(scene.desk.resting(), Some(error));
    assert!(scene.desk.fold_in() > Some(Duration::from_millis(100)));
    assert!(scene.rung() <= 1, "not for every record");
    scene.desk.failed = Instant::now().checked_sub(Duration::from_secs(2));
    assert_eq!(
        (scene.desk.resting(), scene.desk.fold_in()),
        (None, Some(Duration::ZERO))
    );
    let batch = scene.desk.batch().unwrap().unwrap();
    assert_eq!(batch.changes.entries.len(), 70 * 60 + 10);
    scene.desk.folded(&batch);
    assert_eq!((scene.desk.resting(), scene.desk.fold_in()), (None, None));
}
