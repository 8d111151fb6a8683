//! The checks and tests of this workspace in one command, for people and for CI: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod account;
mod bench;
mod checks;
mod debian;
mod error;
mod folder;
mod fuzz;
mod postgres;
mod report;
mod server;
mod shell;
mod soak;
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
  fuzz [TARGET...] [--seconds N]
                   Search each fuzz target, or these, for N seconds (default 60), guided by coverage:
                   inputs that panic, take too much memory or break a promise of the format
  soak [--minutes N]
                   For nights: half of N minutes (default 20) for all fuzz targets, half for the tests
                   of races on every database, again and again
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

Fuzzing needs a C++ compiler for libFuzzer, and no nightly toolchain. Without one, `fuzz` and `soak` say
so and try mutations of the committed seeds instead. What was found is kept in fuzz/artifacts.

Environment:
  CXX                       The C++ compiler for `fuzz` and `soak` (else c++)
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
    Fuzz(Vec<String>, u64),
    Soak(u64),
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
        ["fuzz", rest @ ..] => {
            let (targets, seconds) = number(rest, "--seconds", fuzz::SECONDS)?;
            Some(Task::Fuzz(targets, seconds))
        }
        ["soak", rest @ ..] => {
            let (others, minutes) = number(rest, "--minutes", soak::MINUTES)?;
            others.is_empty().then_some(Task::Soak(minutes))
        }
        ["servers"] => Some(Task::Servers),
        ["bench", rest @ ..] => Bench::parse(rest).map(Task::Bench),
        _ => None,
    }
}

/// Splits words into the number behind an option, if it is there, and the others.
fn number(words: &[&str], option: &str, default: u64) -> Option<(Vec<String>, u64)> {
    let (mut others, mut number) = (Vec::new(), default);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == option {
            number = words.next()?.parse().ok().filter(|number| *number > 0)?;
        } else if word.starts_with('-') {
            return None;
        } else {
            others.push((*word).to_owned());
        }
    }
    Some((others, number))
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
        Task::Fuzz(targets, seconds) => fuzz::fuzz(&shell, targets, *seconds),
        Task::Soak(minutes) => soak::soak(&shell, *minutes),
        Task::Servers => server::serve(&shell),
        Task::Bench(bench) => bench::bench(&shell, bench),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_behind_their_option() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let check = |line: &[&str], expected| {
            assert_eq!(number(line, "--seconds", 60), expected, "{line:?}");
        };
        check(&[], Some((Vec::new(), 60)));
        check(&["row"], Some((words(&["row"]), 60)));
        check(&["--seconds", "5", "row"], Some((words(&["row"]), 5)));
        check(
            &["row", "--seconds", "5", "value"],
            Some((words(&["row", "value"]), 5)),
        );
        for wrong in [
            &["--seconds"][..],
            &["--seconds", "x"],
            &["--seconds", "0"],
            &["--minutes", "1"],
        ] {
            check(wrong, None);
        }
    }
}
