//! Why a run could not be finished, with what to do next.

use std::io;
use std::path::PathBuf;

use oplog_diesel::core::{MessageError, RowError};

use crate::history::HistoryError;

/// Why a run could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository can't be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// No commit changed a file, so there is nothing to log.
    #[error(
        "no file in the {commits} commits, so there is nothing to log; take more with --limit, or \
         another repository with --repo PATH"
    )]
    NothingToLog { commits: usize },
    /// The SQLite file is there already.
    #[error("{} exists already; remove it or name a new file with --database-url", path.display())]
    FileExists { path: PathBuf },
    /// The SQLite file can't be created.
    #[error("{} can't be created; name a file in a folder you can write to with --database-url", path.display())]
    FileNotCreated { path: PathBuf, source: io::Error },
    /// The database is of a kind that this example does not know.
    #[error(
        "--database-url takes a postgres:// URL or the path of a SQLite file, not a {scheme}: URL"
    )]
    UnknownDatabase { scheme: String },
    /// The server can't be reached.
    #[error("no connection to the database; check --database-url and whether the server runs")]
    Connect(#[from] diesel::ConnectionError),
    /// The PostgreSQL user may not create a schema.
    #[error("the schema {schema} can't be created; the user needs CREATE on the database")]
    Schema {
        schema: String,
        source: diesel::result::Error,
    },
    /// A statement of the example's own failed.
    #[error("a statement failed; check that the database can be reached and has space")]
    Database(#[from] diesel::result::Error),
    /// The log said no.
    #[error("the log could not be written or read")]
    Log(#[source] Box<oplog_diesel::Error>),
    /// A message of the log does not hold a file.
    #[error("a message of the log can't be read")]
    Message(#[from] MessageError),
    /// The previous values of a message are not those of a file.
    #[error("the previous values of a message can't be read")]
    Row(#[from] RowError),
    /// There is no folder for temporary files, or it is full.
    #[error("no temporary folder can be made; set TMPDIR to a folder with space")]
    TemporaryFolder(#[source] io::Error),
    /// The result could not be written.
    #[error("the result could not be written to standard output")]
    Output(#[from] io::Error),
}

impl From<oplog_diesel::Error> for Error {
    fn from(error: oplog_diesel::Error) -> Self {
        Error::Log(Box::new(error))
    }
}

/// An error and its causes in one line.
pub fn line(error: &dyn std::error::Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !line.is_empty() {
            line.push_str(": ");
        }
        // A server's message may have several lines.
        let text = error.to_string();
        line.push_str(&text.split_whitespace().collect::<Vec<_>>().join(" "));
        next = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_error_and_its_causes() {
        let cause = io::Error::other("several\n\tlines\n");
        assert_eq!(
            line(&Error::TemporaryFolder(cause)),
            "no temporary folder can be made; set TMPDIR to a folder with space: several lines"
        );
    }
}
