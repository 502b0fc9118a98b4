//! Owns comma-separated values: RFC 4180, with a header, and safe in the hands of a spreadsheet.

use csv::{QuoteStyle, Terminator, WriterBuilder};

use crate::admin::amend_request::printable;

/// Lines that end in CR LF, the first of them the header. Cells that are no numbers are quoted, so that a
/// spreadsheet which splits at semicolons finds none; so is the header.
pub fn csv(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<String, csv::Error> {
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .quote_style(QuoteStyle::NonNumeric)
        .from_writer(Vec::new());
    writer.write_record(header)?;
    for row in rows {
        writer.write_record(row)?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A name as a cell. Models' names come from agents: one that begins like a formula gets an apostrophe
/// before it, which spreadsheets take for "this is text"
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
pub fn name_cell(name: &str) -> String {
    let name = printable(name);
    let formula = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '|', '%'];
    match name.trim_start().starts_with(formula) {
        true => format!("'{name}"),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_quotes_are_those_of_rfc_4180() {
        let rows = [
            vec!["claude-opus".to_owned(), "4.12".to_owned()],
            vec!["say \"hi\", now".to_owned(), "0".to_owned()],
            vec![String::new(), "12".to_owned()],
        ];
        let text = csv(&["model", "usd"], rows).unwrap();
        assert_eq!(
            text,
            "\"model\",\"usd\"\r\n\"claude-opus\",4.12\r\n\"say \"\"hi\"\", now\",0\r\n\"\",12\r\n"
        );
    }

    #[test]
    fn a_models_name_is_never_a_formula() {
        for (name, cell) in [
            ("claude-opus", "claude-opus"),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("  =1", "'  =1"),
            ("\t=1", "\u{fffd}=1"),
            ("\r\n=1", "\u{fffd}\u{fffd}=1"),
            ("＝1", "'＝1"),
            ("|cmd", "'|cmd"),
        ] {
            assert_eq!(name_cell(name), cell, "{name:?}");
        }
        let text = csv(&["model"], [vec![name_cell("x;=HYPERLINK(1)")]]).unwrap();
        assert_eq!(text, "\"model\"\r\n\"x;=HYPERLINK(1)\"\r\n");
    }
}
