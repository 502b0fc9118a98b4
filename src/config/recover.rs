//! Owns going on after a mistake: the entry that holds it is blanked out, so that a second look finds
//! the next one.

use super::yaml::{Entry, Mark, Node, Value};

/// `text` without the entry that holds `at`, lines kept; `None` where removing it would leave
/// something else broken.
pub(super) fn without_entry_at(text: &str, tree: &Node, at: Mark) -> Option<String> {
    let entry = removable(tree, at)?;
    let last = last_line(&entry.value).max(entry.at.line);
    let lines = text
        .split('\n')
        .zip(1..)
        .map(|(line, number)| match number {
            number if number == entry.at.line => line
                .chars()
                .take(entry.at.column as usize - 1)
                .collect::<String>(),
            number if entry.at.line < number && number <= last => String::new(),
            _ => line.to_owned(),
        });
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// The innermost entry around `at` whose mapping has others, none of them on its lines.
fn removable(node: &Node, at: Mark) -> Option<&Entry> {
    let deeper = node
        .children()
        .into_iter()
        .find_map(|(_, child)| removable(child, at));
    if deeper.is_some() {
        return deeper;
    }
    let entries = node.entries();
    let entry = entries.iter().find(|entry| holds(entry, at))?;
    let (first, last) = (entry.at.line, last_line(&entry.value).max(entry.at.line));
    let apart = entries
        .iter()
        .filter(|other| !std::ptr::eq(*other, entry))
        .all(|other| last_line(&other.value).max(other.at.line) < first || last < other.at.line);
    (entries.len() > 1 && apart).then_some(entry)
}

fn holds(entry: &Entry, at: Mark) -> bool {
    entry.at.is_at(at.line, at.column) || stands_in(&entry.value, at)
}

fn stands_in(node: &Node, at: Mark) -> bool {
    node.at.is_at(at.line, at.column)
        || node.entries().iter().any(|entry| holds(entry, at))
        || matches!(&node.value, Value::List(items) if items.iter().any(|item| stands_in(item, at)))
}

/// The last line that something of `node` stands on.
fn last_line(node: &Node) -> u32 {
    let own = match &node.value {
        Value::Scalar(text) => {
            node.at.line + u32::try_from(text.trim_end().matches('\n').count()).unwrap_or(0)
        }
        _ => node.at.line,
    };
    let below = node
        .children()
        .into_iter()
        .map(|(_, child)| last_line(child));
    below.fold(own, u32::max)
}

#[cfg(test)]
mod tests {
    use super::super::yaml::parse;
    use super::*;

    fn without(text: &str, line: u32, column: u32) -> Option<String> {
        let tree: Node = parse(text).unwrap();
        let at = Mark {
            line,
            column,
            length: 1,
        };
        without_entry_at(text, &tree, at)
    }

    #[test]
    fn only_the_entry_with_the_mistake_goes() {
        assert_eq!(
            without("a:\n  - x: 1\n    bad:\n      - 2\n    y: 3\nb: 4\n", 3, 5).unwrap(),
            "a:\n  - x: 1\n    \n\n    y: 3\nb: 4\n"
        );
        assert_eq!(without("- bad: 1\n  y: 3\n", 1, 3).unwrap(), "- \n  y: 3\n");
    }

    #[test]
    fn an_entry_that_cannot_go_alone_takes_the_one_around_it() {
        assert_eq!(
            without("a: {x: 1, bad: 2}\nb: 4\n", 1, 11).unwrap(),
            "\nb: 4\n"
        );
        assert_eq!(without("a:\n  bad: 2\nb: 4\n", 2, 3).unwrap(), "\n\nb: 4\n");
        assert_eq!(without("bad: 1\n", 1, 1), None);
    }
}
