//! Owns a look into Tollgate's own ledger, read-only and beside the process that keeps it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use tollgate::budget::sqlite_report::LedgerReader;

use super::provider::prices::cost;
use super::provider::truth::{Bill, Used};
use super::proxy::Proxy;

/// One row of a table, by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row(BTreeMap<String, Value>);

impl Row {
    #[track_caller]
    pub fn number(&self, column: &str) -> u64 {
        match self.0.get(column) {
            Some(Value::Integer(number)) => u64::try_from(*number).unwrap(),
            Some(Value::Null) => 0,
            other => panic!("{column} is {other:?} in {self:?}"),
        }
    }

    #[track_caller]
    pub fn text(&self, column: &str) -> &str {
        match self.0.get(column) {
            Some(Value::Text(text)) => text,
            Some(Value::Null) => "",
            other => panic!("{column} is {other:?} in {self:?}"),
        }
    }

    fn key(&self) -> [Option<&Value>; 3] {
        ["rid", "attempt", "part"].map(|column| self.0.get(column))
    }

    /// What one model used, as the ledger has it.
    pub fn used(&self) -> Used {
        Used {
            model: self.text("model").to_owned(),
            input: self.number("input"),
            write_5m: self.number("cache_write_5m"),
            write_1h: self.number("cache_write_1h"),
            read: self.number("cache_read"),
            output: self.number("output"),
            searches: 0,
        }
    }

    pub fn cost(&self) -> u64 {
        self.number("cost")
    }

    pub fn ending(&self) -> &str {
        self.text("ending")
    }

    pub fn is_estimated(&self) -> bool {
        self.number("estimated") != 0
    }
}

/// The ledger at one moment.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// What calls came to.
    pub entries: Vec<Row>,
    /// Calls under way.
    pub reservations: Vec<Row>,
}

impl Books {
    pub fn read(file: &Path) -> Self {
        // After a kill, the latest is in the journal only: a reader brings it in.
        LedgerReader::open(file).ok();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let Ok(connection) = Connection::open_with_flags(file, flags) else {
            return Self::default();
        };
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        // Both as of one moment.
        connection.execute_batch("BEGIN").unwrap();
        Self {
            entries: table(&connection, "entry"),
            reservations: table(&connection, "reservation"),
        }
    }

    /// Nano-dollars.
    pub fn total(&self) -> u64 {
        self.entries.iter().map(Row::cost).sum()
    }

    /// Calls that cost something, or would have: not those that their origin refused.
    pub fn served(&self) -> Vec<&Row> {
        let entries = self.entries.iter();
        entries.filter(|row| row.ending() != "refused").collect()
    }

    /// Rows whose counts are the provider's own.
    pub fn exact(&self) -> Vec<&Row> {
        let served = self.served().into_iter();
        served.filter(|row| !row.is_estimated()).collect()
    }

    /// The one row that `before` did not have.
    #[track_caller]
    pub fn new_since(&self, before: &Self) -> Row {
        let known = |row: &Row| before.entries.iter().any(|old| old.key() == row.key());
        let mut new: Vec<&Row> = self.entries.iter().filter(|row| !known(row)).collect();
        assert_eq!(new.len(), 1, "{new:#?}");
        new.remove(0).clone()
    }
}

fn table(connection: &Connection, name: &str) -> Vec<Row> {
    let Ok(mut statement) = connection.prepare(&format!("SELECT * FROM {name}")) else {
        return Vec::new();
    };
    let columns: Vec<String> = statement.column_names().map(ToOwned::to_owned).collect();
    let rows = statement.query_map([], |row| {
        let cells = columns.iter().enumerate();
        let cells = cells.map(|(at, name)| Ok((name.clone(), row.get::<_, Value>(at)?)));
        Ok(Row(cells.collect::<rusqlite::Result<_>>()?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// What was used and what it costs, in an order that both sides share.
fn lines(used: impl Iterator<Item = (Used, u64)>) -> Vec<(Used, u64)> {
    let mut lines: Vec<_> = used.collect();
    lines.sort();
    lines
}

/// The same calls, tokens and costs on both sides, whatever their order. Searches are in the costs.
#[track_caller]
pub fn assert_equal(bills: &[Bill], rows: &[&Row]) {
    let billed = bills.iter().flat_map(|bill| &bill.used).map(|used| {
        let plain = Used {
            searches: 0,
            ..used.clone()
        };
        (plain, cost(used))
    });
    let booked = rows.iter().map(|row| (row.used(), row.cost()));
    let (billed, booked) = (lines(billed), lines(booked));
    let only = |these: &[(Used, u64)], those: &[(Used, u64)]| -> Vec<(Used, u64)> {
        let missing = these.iter().filter(|line| !those.contains(line));
        missing.take(5).cloned().collect()
    };
    assert_eq!(
        billed,
        booked,
        "only billed: {:#?}\nonly booked: {:#?}",
        only(&billed, &booked),
        only(&booked, &billed)
    );
}

impl Proxy {
    fn ledger_file(&self) -> PathBuf {
        self.file("state/ledger.db")
    }

    /// The ledger as it is now.
    pub fn books(&self) -> Books {
        Books::read(&self.ledger_file())
    }

    /// What operators changed.
    pub fn amendments(&self) -> Vec<Row> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.ledger_file(), flags).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        table(&connection, "amendment")
    }

    /// The ledger once it is as wanted.
    pub async fn books_with(&self, what: &str, wanted: impl Fn(&Books) -> bool) -> Books {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let books = self.books();
            if wanted(&books) {
                return books;
            }
            assert!(
                Instant::now() < deadline,
                "the ledger never had {what}: {books:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The ledger once nothing is under way and it has that many rows of calls that were served.
    pub async fn books_of(&self, served: usize) -> Books {
        let what = format!("{served} rows and nothing under way");
        let enough =
            |books: &Books| books.reservations.is_empty() && books.served().len() >= served;
        self.books_with(&what, enough).await
    }
}
