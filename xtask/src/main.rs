//! The checks and tests of this workspace in one command, for people and for CI: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod account;
mod bench;
mod checks;
mod debian;
mod error;
mod folder;
mod postgres;
mod report;
mod server;
mod shell;
mod versions;

use std::process::ExitCode;

use bench::Bench;
use checks::Databases;
use error::{Error, Result};
use shell::Shell;

const HELP: &str = "\
Checks and tests of this workspace

Usage: cargo xtask <COMMAND>

Commands:
  test [DATABASE]  Run everything that must hold for a change, and say how long each step took
                     all       every database, what CI runs (default)
                     sqlite    no server is needed or started
                     postgres  PostgreSQL only
  tidy             The part of `test` without tests: format, clippy, documentation, versions
  servers          Start the servers that `test` starts, print their URLs, stop them at Ctrl-C;
                   for running single tests by hand
  bench [OPTIONS] [DATABASE]
                   Measure what a logged write costs next to the same write without a log, next to
                   the protocol of the original and next to a trigger; print tables and write
                   target/bench/results.json. The server it starts has fsync on.
                     --quick           under two minutes instead of some ten
                     --only SUBSTRING  only rows with this in their label, and their baselines
                     --list            print the labels and measure nothing
                     --profile         repeat the first of these rows for ten seconds, for a profiler
                     --cores WHERE     client and server process on the same core (default), apart,
                                       or on any
  help, --help     Print this text

Servers are private and thrown away: a new folder below the temporary folder, a Unix socket in it and
no network port. They are stopped and removed at success, failure and Ctrl-C; what a killed run left
behind is removed by the next one. Run as root, they run as the user `postgres` or `nobody`.
PostgreSQL is searched in PGBIN, PATH, /usr/lib/postgresql/*/bin and `pg_config --bindir`. If it is
not there, Debian's or Ubuntu's packages are downloaded and unpacked below target/, without root.

Environment:
  OPLOG_TEST_POSTGRES_URL   Use this server instead of a private one; its user must be allowed to
                            create databases
  OPLOG_BENCH_POSTGRES_URL  The same for `bench`, which makes schemas and drops them; it opens some
                            170 connections
  PGBIN                     Folder of the PostgreSQL binaries to use
  OPLOG_TEST_IGNORE_INSTALLED=1
                            Use Debian's packages even if PostgreSQL is installed
  TMPDIR                    Where the servers keep their data (else /tmp)
  NO_COLOR                  No colours

Exit status: 0 all passed, 1 a step failed, 2 wrong usage, 130 stopped by Ctrl-C or another signal
";

enum Task {
    Help,
    Test(Databases),
    Tidy,
    Servers,
    Bench(Bench),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(task) = parse(&words) else {
        eprintln!("error: unknown arguments: {}\n\n{HELP}", words.join(" "));
        return ExitCode::from(2);
    };
    match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => {
            eprintln!("stopped by a signal");
            ExitCode::from(130)
        }
        Err(Error::Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[&str]) -> Option<Task> {
    if words.iter().any(|word| matches!(*word, "--help" | "-h")) {
        return Some(Task::Help);
    }
    match words {
        [] | ["help"] => Some(Task::Help),
        ["test"] | ["test", "all"] => Some(Task::Test(Databases::ALL)),
        ["test", "sqlite"] => Some(Task::Test(Databases::SQLITE)),
        ["test", "postgres"] => Some(Task::Test(Databases::POSTGRES)),
        ["tidy"] => Some(Task::Tidy),
        ["servers"] => Some(Task::Servers),
        ["bench", rest @ ..] => Bench::parse(rest).map(Task::Bench),
        _ => None,
    }
}

fn run(task: &Task) -> Result<()> {
    if let Task::Help = task {
        print!("{HELP}");
        return Ok(());
    }
    let shell = Shell::new()?;
    match task {
        Task::Help => Ok(()),
        Task::Test(databases) => checks::test(&shell, *databases),
        Task::Tidy => checks::tidy(&shell),
        Task::Servers => server::serve(&shell),
        Task::Bench(bench) => bench::bench(&shell, bench),
    }
}
