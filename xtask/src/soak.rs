//! What takes longer than a change should wait for: every fuzz target, and the tests of races many times.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, cannot};
use crate::fuzz::Fuzzer;
use crate::report::{Done, Report};
use crate::server::{Database, ENGINES};
use crate::shell::Shell;

/// How long it takes if nothing else is said.
pub(crate) const MINUTES: u64 = 20;

/// The programs of `oplog-tests` that hold the tests of one database.
const DATABASES: &[&str] = &["sqlite", "postgres"];
/// The tests whose outcome may depend on who comes first.
const RACES: &[&str] = &["races::", "contention::", "crowds::", "lock_first::"];
/// Tests that run at once, in turn: alone, as many as there are cores on small machines, and far too many.
const TEST_THREADS: &[&str] = &["1", "2", "4", "16"];
/// Each target gets that long at least, however short the whole is to be.
const SECONDS_MIN: u64 = 5;

/// Half of the time for fuzz targets, half for races.
pub(crate) fn soak(shell: &Shell, minutes: u64) -> Result<()> {
    let mut report = Report::new();
    let mut servers = Vec::new();
    let result = steps(shell, minutes * 60 / 2, &mut report, &mut servers);
    if let Err(Error::Failed(_)) = result {
        servers.iter().for_each(|server| server.keep_log(shell));
    }
    drop(servers);
    report.print();
    result
}

fn steps(
    shell: &Shell,
    seconds: u64,
    report: &mut Report,
    servers: &mut Vec<Database>,
) -> Result<()> {
    for engine in ENGINES {
        servers.push(report.step(engine.name(), || Database::open(*engine, shell))?);
    }
    report.step("build races", || {
        let mut build = shell.cargo(&["test", "--no-run", "--package", "oplog-tests"]);
        build.arg("--all-features");
        shell.run(build)
    })?;
    let fuzzer = report.step("build fuzz targets", || Fuzzer::build(shell))?;
    let targets = fuzzer.choose(shell, &[])?;
    let each = (seconds / targets.len().max(1) as u64).max(SECONDS_MIN);
    let fuzzed = fuzzer.search(shell, &targets, each, report);
    if let Err(Error::Interrupted) = fuzzed {
        return fuzzed;
    }

    let mut findings: Vec<String> = match fuzzed {
        Err(Error::Failed(finding)) => vec![finding],
        _ => Vec::new(),
    };
    let share = Duration::from_secs(seconds / DATABASES.len() as u64);
    for database in DATABASES {
        let result = report.try_step(&format!("races, {database}"), || {
            races(shell, database, share, servers)
        });
        match result {
            Ok(()) => {}
            Err(Error::Failed(finding)) => findings.push(finding),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
        }
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(Error::new(findings.join("\n")))
    }
}

/// Runs the races of one database until the time is over, at least once.
fn races(shell: &Shell, database: &str, time: Duration, servers: &[Database]) -> Result<Done> {
    let start = Instant::now();
    let mut runs = 0;
    while runs == 0 || start.elapsed() < time {
        let threads = TEST_THREADS[runs % TEST_THREADS.len()];
        let mut test = shell.cargo(&["test", "--package", "oplog-tests", "--all-features"]);
        test.args(["--test", database, "--"]).args(RACES);
        test.args(["--test-threads", threads]);
        // Tests that shorten themselves in every other run.
        test.env("OPLOG_SOAK", "1");
        test.envs(servers.iter().map(|server| (server.variable, &server.url)));
        runs += 1;
        run(shell, test, database, runs)?;
    }
    Ok(Done::Counted(format!("{runs} runs of all races")))
}

/// Runs it quietly; what a failed one printed is kept.
fn run(shell: &Shell, mut test: Command, database: &str, number: usize) -> Result<()> {
    let path = log(shell, database, number)?;
    let cannot_log = || format!("write {}", path.display());
    let log = File::create(&path).map_err(cannot(cannot_log()))?;
    test.stdout(log.try_clone().map_err(cannot(cannot_log()))?);
    test.stderr(log);
    match shell.run(test) {
        Ok(()) => {
            let text =
                fs::read_to_string(&path).map_err(cannot(format!("read {}", path.display())))?;
            if !text.contains("\ntest ") {
                return Err(Error::new(format!(
                    "no test on {database} is one of {}",
                    RACES.join(" ")
                )));
            }
            fs::remove_file(&path).map_err(cannot(format!("remove {}", path.display())))
        }
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(Error::Failed(why)) => Err(Error::new(format!(
            "races on {database}, run {number}: {why}\n  log: {}",
            path.display()
        ))),
    }
}

fn log(shell: &Shell, database: &str, number: usize) -> Result<PathBuf> {
    let folder = shell.target.join("soak");
    fs::create_dir_all(&folder).map_err(cannot(format!("make {}", folder.display())))?;
    Ok(folder.join(format!("{database}-{number}.log")))
}
