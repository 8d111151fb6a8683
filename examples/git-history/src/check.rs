//! Rebuilds the table from the log and compares it with Git's own trees.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use oplog_diesel::{Frontier, Oplog};

use crate::compare::{Comparison, compare};
use crate::database::{Database, Table};
use crate::error::Error;
use crate::history::History;
use crate::log::Mark;
use crate::model::{AGGREGATE, File};

/// Rows read at once from a table of files.
const PAGE_ROWS: i64 = 2_000;

/// What became of the replay of the whole log.
#[derive(Debug)]
pub struct Replayed {
    /// Rows that the replay left in its table.
    pub rows: u64,
    /// Messages that it applied.
    pub messages: u64,
    /// How long it took.
    pub duration: Duration,
}

/// Replays the whole log into the table `files_replay`.
pub fn replay<D: Database>(
    oplog: &Oplog,
    conn: &mut D,
    bar: &ProgressBar,
) -> Result<Replayed, Error> {
    let start = Instant::now();
    let report = oplog
        .replay(conn)
        .progress(|progress| bar.set_position(progress.entries))
        .into_suffix(Table::Replay.suffix())?;
    let duration = start.elapsed();
    Ok(Replayed {
        rows: report.rows,
        messages: report.messages,
        duration,
    })
}

/// Compares the table as of a commit with that commit's tree in Git: the replayed and the written
/// one as of the last commit, one of its own, replayed for the purpose, as of any other.
pub fn check<D: Database>(
    oplog: &Oplog,
    conn: &mut D,
    history: &History,
    mark: Mark,
) -> Result<Comparison, Error> {
    if mark.commit + 1 == history.len() {
        let mut found = compare_table(conn, history, mark, Table::Replay)?;
        let live = compare_table(conn, history, mark, Table::Files)?;
        found.differences += live.differences;
        found.shown.extend(live.shown);
        return Ok(found);
    }
    let frontier = Frontier::at([(AGGREGATE, mark.sequence)]);
    oplog
        .replay(conn)
        .up_to(&frontier)
        .into_suffix(Table::At.suffix())?;
    let found = compare_table(conn, history, mark, Table::At)?;
    conn.batch_execute("DROP TABLE files_at")?;
    Ok(found)
}

fn compare_table<D: Database>(
    conn: &mut D,
    history: &History,
    mark: Mark,
    table: Table,
) -> Result<Comparison, Error> {
    let git = history
        .files(mark.commit)?
        .filter_map(|change| match change {
            Ok(change) => change.after().map(Ok),
            Err(error) => Some(Err(error.into())),
        });
    compare(
        git,
        Rows {
            conn,
            table,
            page: Vec::new().into_iter(),
            last: Vec::new(),
        },
    )
}

/// The rows of a table in the order of their paths, a page at a time.
struct Rows<'c, D> {
    conn: &'c mut D,
    table: Table,
    page: std::vec::IntoIter<File>,
    last: Vec<u8>,
}

impl<D: Database> Iterator for Rows<'_, D> {
    type Item = Result<File, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 {
            match self.conn.page(self.table, &self.last, PAGE_ROWS) {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => return Some(Err(error.into())),
            }
        }
        let file = self.page.next()?;
        self.last.clone_from(&file.path);
        Some(Ok(file))
    }
}
