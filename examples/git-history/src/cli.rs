//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;

/// Logs the history of a Git repository, replays the log and compares it with Git.
///
/// Each commit of the first-parent line becomes one logged transaction on a table of files. The log
/// is then replayed into a second table, as of the last commit and of ten commits in between, and
/// every row is compared with Git's own tree. Last, one stored byte is flipped in a copy of the log,
/// to show that it is found.
///
/// The exit status is 0 if there was no difference and the flipped byte was found, 1 if not, and 2
/// if the run could not be finished.
#[derive(Parser, Debug)]
#[command(name = "git-history", version)]
pub struct Arguments {
    /// The repository, or a folder in it.
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub repo: PathBuf,

    /// Where to log: a postgres:// URL, or the path of a SQLite file that does not exist yet.
    ///
    /// On PostgreSQL everything happens in schemas of its own, git_history_…, dropped at the end
    /// (a killed run leaves them behind). A SQLite file is kept, with its key file beside it.
    /// Without this option it is a SQLite file in a temporary folder, removed at the end.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,

    /// Take only the oldest COMMITS commits.
    #[arg(long, value_name = "COMMITS")]
    pub limit: Option<NonZeroUsize>,

    /// Print nothing on standard output but one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
