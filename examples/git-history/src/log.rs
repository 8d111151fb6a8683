//! Writes the history: each commit is one logged transaction.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use oplog_diesel::Oplog;

use crate::database::Database;
use crate::error::Error;
use crate::history::History;
use crate::model::AGGREGATE;

/// How many commits before the last one are compared.
const MARKS_MAX: usize = 10;

/// What was logged.
#[derive(Debug)]
pub struct Logged {
    /// Commits that changed nothing and so have no entry.
    pub empty_commits: u64,
    /// Entries written.
    pub entries: u64,
    /// Messages written: one for each created, changed or deleted file.
    pub messages: u64,
    /// How long it took, reading the repository included.
    pub duration: Duration,
    /// The commits to compare, oldest first, the last of all included.
    pub marks: Vec<Mark>,
}

/// A commit and where the log was after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Place of the commit in the history.
    pub commit: usize,
    /// Sequence of the last entry, 0 if there was none yet.
    pub sequence: u64,
}

/// Logs all commits, oldest first.
pub fn log<D: Database>(
    oplog: &Oplog,
    conn: &mut D,
    history: &History,
    bar: &ProgressBar,
) -> Result<Logged, Error> {
    let wanted = marks(history.len());
    let mut logged = Logged {
        empty_commits: 0,
        entries: 0,
        messages: 0,
        duration: Duration::ZERO,
        marks: Vec::new(),
    };
    let mut sequence = 0;
    let start = Instant::now();
    for commit in 0..history.len() {
        let facts = history.facts(commit)?;
        let (messages, receipts) = oplog
            .metadata("author", facts.author)
            .metadata("time", facts.time)
            .metadata("commit", facts.id)
            .transaction_with_receipts(conn, |tx| D::write(tx, history.changes(commit)?))?;
        logged.empty_commits += u64::from(receipts.is_empty());
        logged.entries += receipts.len() as u64;
        logged.messages += messages;
        for receipt in receipts
            .iter()
            .filter(|receipt| receipt.aggregate.as_ref() == AGGREGATE)
        {
            sequence = sequence.max(receipt.sequence);
        }
        if wanted.contains(&commit) {
            logged.marks.push(Mark { commit, sequence });
        }
        bar.inc(1);
    }
    logged.duration = start.elapsed();
    Ok(logged)
}

/// The places of the commits to compare: evenly spread, and the last.
fn marks(commits: usize) -> BTreeSet<usize> {
    let Some(last) = commits.checked_sub(1) else {
        return BTreeSet::new();
    };
    (1..=MARKS_MAX)
        .map(|mark| last * mark / (MARKS_MAX + 1))
        .chain([last])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_commits_in_between_and_the_last_are_compared() {
        assert!(marks(0).is_empty());
        assert_eq!(Vec::from_iter(marks(1)), [0]);
        assert_eq!(Vec::from_iter(marks(3)), [0, 1, 2]);
        for commits in [11, 12, 13, 100, 20_000] {
            let marks = marks(commits);
            assert_eq!(marks.len(), 11, "of {commits} commits");
            assert_eq!(marks.last(), Some(&(commits - 1)));
        }
    }
}
