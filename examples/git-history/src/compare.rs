//! Two sorted streams of files, side by side.

use std::cmp::Ordering;
use std::fmt;

use crate::error::Error;
use crate::model::File;
use crate::report::printable;

/// How many differences are kept to be shown; the others are only counted.
const SHOWN_MAX: usize = 5;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Files that Git's tree holds.
    pub rows: u64,
    /// Files that are only on one side or not the same on both.
    pub differences: u64,
    /// The first few of the differences.
    pub shown: Vec<Difference>,
}

/// A file that is not the same on both sides.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The file in Git's tree.
    pub git: Option<File>,
    /// The row in the table.
    pub table: Option<File>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.git, &self.table) {
            (Some(git), Some(table)) => {
                write!(
                    f,
                    "{}: Git has {}, the table {}",
                    path(git),
                    content(git),
                    content(table)
                )
            }
            (Some(git), None) => write!(f, "{}: missing in the table", path(git)),
            (None, Some(table)) => write!(f, "{}: only in the table", path(table)),
            (None, None) => Ok(()),
        }
    }
}

fn path(file: &File) -> String {
    printable(&file.path)
}

fn content(file: &File) -> String {
    let id: String = file
        .blob_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let size = file
        .size
        .map_or("no size".to_owned(), |size| format!("{size} bytes"));
    format!("{:06o} {id} ({size})", file.mode)
}

/// Compares the files of Git's tree with the rows of a table, both in the byte order of their paths.
pub fn compare(
    git: impl Iterator<Item = Result<File, Error>>,
    table: impl Iterator<Item = Result<File, Error>>,
) -> Result<Comparison, Error> {
    let (mut git, mut table) = (git.peekable(), table.peekable());
    let mut found = Comparison::default();
    loop {
        let order = match (git.peek(), table.peek()) {
            (None, None) => return Ok(found),
            (Some(Ok(git)), Some(Ok(table))) => git.path.cmp(&table.path),
            // An error is taken from its own side below.
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
        };
        let git = if order.is_le() {
            git.next().transpose()?
        } else {
            None
        };
        let table = if order.is_ge() {
            table.next().transpose()?
        } else {
            None
        };
        found.rows += u64::from(git.is_some());
        if git != table {
            found.differences += 1;
            if found.shown.len() < SHOWN_MAX {
                found.shown.push(Difference { git, table });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Each file is its path and, after a `=`, its mode.
    fn files(list: &[&str]) -> impl Iterator<Item = Result<File, Error>> {
        list.iter().map(|text| {
            let (path, mode) = text.split_once('=').unwrap_or((text, "0"));
            Ok(File {
                path: path.into(),
                mode: mode.parse().unwrap(),
                blob_id: vec![1],
                size: None,
            })
        })
    }

    fn check(git: &[&str], table: &[&str], rows: u64, differences: &[&str]) {
        let found = compare(files(git), files(table)).unwrap();
        assert_eq!(
            (found.rows, found.differences),
            (rows, differences.len() as u64)
        );
        let shown: Vec<_> = found.shown.iter().map(ToString::to_string).collect();
        assert_eq!(shown, differences[..differences.len().min(SHOWN_MAX)]);
    }

    #[test]
    fn equal_sides_have_no_difference() {
        check(&[], &[], 0, &[]);
        check(&["a", "b"], &["a", "b"], 2, &[]);
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        check(
            &["a", "b=1", "d"],
            &["b=2", "c", "d", "e"],
            3,
            &[
                "a: missing in the table",
                "b: Git has 000001 01 (no size), the table 000002 01 (no size)",
                "c: only in the table",
                "e: only in the table",
            ],
        );
    }

    #[test]
    fn more_differences_than_are_shown_are_still_counted() {
        let missing = ["a", "b", "c", "d", "e", "f", "g"];
        let lines = missing.map(|path| format!("{path}: missing in the table"));
        check(&missing, &[], 7, &lines.each_ref().map(String::as_str));
    }
}
