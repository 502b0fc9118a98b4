//! Owns how spending is printed: a table for people, comma-separated values for spreadsheets.

use super::csv;
use super::output;
use crate::admin::amend_request::printable;
use crate::admin::spend_report::{SpendReport, SpendRow, TokenCounts};

/// One row each, and their sum.
pub fn table(report: &SpendReport) -> String {
    let header = [
        &*report.by.to_uppercase(),
        "SPENT",
        "REQUESTS",
        "INPUT",
        "CACHED",
        "OUTPUT",
    ];
    let mut rows: Vec<Vec<String>> = report.rows.iter().map(|row| line(row, name(row))).collect();
    if rows.len() != 1 {
        rows.push(line(&report.total, "total".to_owned()));
    }
    let mut text = output::table(&header, &rows);
    text.push_str(&format!("\n{}", stretch(report)));
    let estimated = report.total.estimated;
    if estimated > 0 {
        text.push_str(&format!(
            "; {estimated} of the requests are estimated in part"
        ));
    }
    text
}

/// `$4.12 in 12 requests`.
pub fn short(report: &SpendReport) -> String {
    let SpendRow { usd, requests, .. } = &report.total;
    let plural = if *requests == 1 { "" } else { "s" };
    format!("${usd} in {requests} request{plural}")
}

/// The words of token classes are those of documents and price tables.
const TOKENS: [&str; 7] = [
    "input",
    "cache_write_5m",
    "cache_write_1h",
    "cache_read",
    "output",
    "audio_input",
    "audio_output",
];

/// RFC 4180, without the sum.
pub fn csv(report: &SpendReport) -> Result<String, ::csv::Error> {
    let header: Vec<&str> = [&*report.by, "usd", "requests", "estimated"]
        .into_iter()
        .chain(TOKENS)
        .collect();
    let rows = report.rows.iter().map(|row| {
        let counts = [row.requests, row.estimated].into_iter();
        let counts = counts.chain(tokens(&row.tokens)).map(|n| n.to_string());
        [csv::name_cell(&row.key), row.usd.clone()]
            .into_iter()
            .chain(counts)
            .collect()
    });
    csv::csv(&header, rows)
}

fn tokens(counts: &TokenCounts) -> [u64; 7] {
    let TokenCounts {
        input,
        cache_write_5m,
        cache_write_1h,
        cache_read,
        output,
        audio_input,
        audio_output,
    } = *counts;
    [
        input,
        cache_write_5m,
        cache_write_1h,
        cache_read,
        output,
        audio_input,
        audio_output,
    ]
}

fn line(row: &SpendRow, name: String) -> Vec<String> {
    let [input, write_5m, write_1h, read, output, audio_in, audio_out] = tokens(&row.tokens);
    let sum = |counts: &[u64]| counts.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
    vec![
        name,
        format!("${}", row.usd),
        row.requests.to_string(),
        sum(&[input, write_5m, write_1h, audio_in]).to_string(),
        read.to_string(),
        sum(&[output, audio_out]).to_string(),
    ]
}

fn name(row: &SpendRow) -> String {
    match row.key.is_empty() {
        true => "-".to_owned(),
        false => printable(&row.key),
    }
}

/// `from 2026-11-01T00:00:00Z, before 2026-12-01T00:00:00Z`.
fn stretch(report: &SpendReport) -> String {
    let days = if report.by == "day" {
        "; days are of UTC"
    } else {
        ""
    };
    let edges = match (&report.from, &report.until) {
        (None, None) => "everything the ledger has".to_owned(),
        (Some(from), None) => format!("from {from} on"),
        (None, Some(until)) => format!("before {until}"),
        (Some(from), Some(until)) => format!("from {from}, before {until}"),
    };
    format!("{edges}{days}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, usd: &str, input: u64) -> SpendRow {
        SpendRow {
            key: key.to_owned(),
            usd: usd.to_owned(),
            requests: 2,
            estimated: 1,
            tokens: TokenCounts {
                input,
                cache_read: 7,
                ..TokenCounts::default()
            },
        }
    }

    fn report(by: &str, rows: Vec<SpendRow>) -> SpendReport {
        SpendReport {
            by: by.to_owned(),
            from: None,
            until: Some("2026-12-01T00:00:00Z".to_owned()),
            total: row("", "4.62", 30),
            rows,
        }
    }

    #[test]
    fn people_get_a_table_with_a_sum_that_says_what_it_covers() {
        let rows = vec![row("team-a/scan", "4.12", 10), row("fix", "0.50", 20)];
        assert_eq!(
            table(&report("agent", rows)),
            "AGENT        SPENT  REQUESTS  INPUT  CACHED  OUTPUT\n\
             team-a/scan  $4.12  2         10     7       0\n\
             fix          $0.50  2         20     7       0\n\
             total        $4.62  2         30     7       0\n\
             before 2026-12-01T00:00:00Z; 1 of the requests are estimated in part"
        );
    }

    #[test]
    fn a_name_that_an_agent_chose_moves_no_cursor_and_runs_in_no_spreadsheet() {
        let hostile = vec![row("=cmd|' /C calc'!A0\u{1b}[2J", "0.01", 1)];
        let report = report("model", hostile);
        let text = table(&report);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let text = csv(&report).unwrap();
        let line = text.split("\r\n").nth(1).unwrap();
        assert_eq!(
            line,
            "\"'=cmd|' /C calc'!A0\u{fffd}[2J\",0.01,2,1,1,0,0,7,0,0,0"
        );
        assert!(text.starts_with("\"model\",\"usd\",\"requests\",\"estimated\",\"input\","));
        assert_eq!(short(&report), "$4.62 in 2 requests");
    }
}
