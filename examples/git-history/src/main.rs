//! Proof on real history: logs a Git repository commit by commit, replays the log and compares
//! every row with Git's own trees. `git-history --help` says more.
#![forbid(unsafe_code)]

mod cli;

mod history;
mod moment;
mod tree;

mod database;
mod model;

mod check;
mod compare;
mod log;
mod recent;
mod tamper;

mod error;
mod report;

#[cfg(test)]
mod testing;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use diesel::{PgConnection, SqliteConnection};
use indicatif::{ProgressBar, ProgressStyle};
use oplog_diesel::prelude::*;
use tempfile::TempDir;

use crate::cli::Arguments;
use crate::database::{Database, Place};
use crate::error::Error;
use crate::history::History;
use crate::report::{Compared, Summary};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(summary) if summary.is_proof() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        // Whoever reads the output has stopped, and knows.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(2),
        Err(error) => {
            eprintln!("git-history: {}", error::line(&error));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Summary, Error> {
    let history = History::open(&arguments.repo, arguments.limit.map(Into::into))?;
    let folder = tempfile::Builder::new()
        .prefix("git-history-")
        .tempdir()
        .map_err(Error::TemporaryFolder)?;
    let place = Place::new(arguments.database_url.as_deref(), &folder)?;
    let mut stdout = io::stdout();
    let mut nowhere = io::sink();
    let text: &mut dyn Write = if arguments.json {
        &mut nowhere
    } else {
        &mut stdout
    };
    let summary = match place {
        Place::Sqlite { .. } => prove::<SqliteConnection>(&history, &place, &folder, text)?,
        Place::Postgres { .. } => prove::<PgConnection>(&history, &place, &folder, text)?,
    };
    if arguments.json {
        serde_json::to_writer(&stdout, &summary).map_err(io::Error::from)?;
        writeln!(stdout)?;
    }
    Ok(summary)
}

/// Logs, replays, compares and tampers, and writes what it finds to `out` as it goes.
fn prove<D: Database>(
    history: &History,
    place: &Place,
    folder: &TempDir,
    out: &mut dyn Write,
) -> Result<Summary, Error> {
    let commits = history.len() as u64;
    writeln!(out, "repository  {}", history.path().display())?;
    writeln!(out, "database    {place}")?;

    let mut session = D::start(place)?;
    let conn = &mut session.conn;
    conn.batch_execute(D::CREATE_FILES)?;
    oplog_diesel::run_migrations(conn)?;
    let key =
        KeyFile::create_if_missing(place.key_file(folder)).map_err(oplog_diesel::Error::from)?;
    let oplog = Oplog::builder().key(key).open(conn)?;

    let bar = progress(commits, "logging commits");
    let logged = log::log(&oplog, conn, history, &bar)?;
    bar.finish_and_clear();
    if logged.entries == 0 {
        return Err(Error::NothingToLog {
            commits: history.len(),
        });
    }
    let log_bytes = conn.log_bytes()?.unsigned_abs();
    report::logged(out, commits, &logged, log_bytes)?;

    let bar = progress(logged.entries, "replaying entries");
    let replayed = check::replay(&oplog, conn, &bar)?;
    bar.finish_and_clear();
    report::replayed(out, &replayed)?;

    report::compared_head(out)?;
    let bar = progress(logged.marks.len() as u64, "comparing with Git");
    let mut compared = Vec::new();
    for &mark in &logged.marks {
        let found = check::check(&oplog, conn, history, mark)?;
        let facts = history.facts(mark.commit)?;
        bar.suspend(|| report::compared(out, &facts.id, &facts.time, &found))?;
        compared.push(Compared {
            commit: facts.id,
            rows: found.rows,
            differences: found.differences,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();

    let tampering = tamper::tamper(&oplog, conn, place, folder.path(), logged.entries)?;
    report::tampered(out, &tampering)?;
    report::recent(out, &recent::recent(&oplog, conn, logged.entries)?)?;

    let summary = Summary {
        commits,
        entries: logged.entries,
        messages: logged.messages,
        rows: conn.count_rows()?.unsigned_abs(),
        compared,
        tamper_found: tampering.found,
        log_bytes,
        log_seconds: logged.duration.as_secs_f64(),
        replay_seconds: replayed.duration.as_secs_f64(),
        peak_rss_bytes: report::peak_rss_bytes(),
    };
    report::verdict(out, &summary)?;
    Ok(summary)
}

/// A bar on standard error, drawn only if that is a terminal.
fn progress(len: u64, message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len)
        .with_style(style)
        .with_message(message)
}
