//! What `test` and `tidy` do, step by step.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result, cannot};
use crate::report::{Done, Report};
use crate::server::{Database, ENGINES};
use crate::shell::Shell;
use crate::versions;

/// The crates that are published.
const PUBLISHED: &[&str] = &["oplog-core", "oplog-derive", "oplog-diesel"];
/// What a package is built with alone. Without `postgres`: in the workspace the tests bring libpq along, a package has
/// the system's, which need not be there. SQLite's bindings build without the library, they only do not link.
const PACKAGE_FEATURES: &str =
    "oplog-diesel/sqlite,oplog-diesel/postgres_backend,oplog-diesel/r2d2,oplog-diesel/chrono";

/// Which databases are tested.
#[derive(Clone, Copy)]
pub(crate) struct Databases {
    /// Features of `oplog-tests`; `None` for all features of all packages, so that clippy, tests and documentation
    /// share what they build.
    features: Option<&'static str>,
    sqlite: bool,
    servers: bool,
}

impl Databases {
    pub(crate) const ALL: Self = Self {
        features: None,
        sqlite: true,
        servers: true,
    };
    pub(crate) const SQLITE: Self = Self {
        features: Some("oplog-tests/sqlite"),
        sqlite: true,
        servers: false,
    };
    pub(crate) const POSTGRES: Self = Self {
        features: Some("oplog-tests/postgres"),
        sqlite: false,
        servers: true,
    };
}

/// Everything that must hold for a change.
pub(crate) fn test(shell: &Shell, databases: Databases) -> Result<()> {
    let mut report = Report::new();
    let mut servers = Vec::new();
    let result = test_steps(shell, databases, &mut report, &mut servers);
    if let Err(Error::Failed(_)) = result {
        servers.iter().for_each(|server| server.keep_log(shell));
    }
    drop(servers);
    report.print();
    result
}

/// Everything that must hold except tests.
pub(crate) fn tidy(shell: &Shell) -> Result<()> {
    let mut report = Report::new();
    let result = tidy_steps(shell, &mut report);
    report.print();
    result
}

fn tidy_steps(shell: &Shell, report: &mut Report) -> Result<()> {
    format(shell, report)?;
    report.step("versions", || versions::check(shell))?;
    clippy(shell, report)?;
    documentation(shell, report)
}

fn test_steps(
    shell: &Shell,
    databases: Databases,
    report: &mut Report,
    servers: &mut Vec<Database>,
) -> Result<()> {
    let before = tree(shell)?;
    format(shell, report)?;
    report.step("versions", || versions::check(shell))?;
    if databases.servers {
        // Before anything is compiled: a machine that cannot bring up a server says so at once.
        for engine in ENGINES {
            servers.push(report.step(engine.name(), || Database::open(*engine, shell))?);
        }
    }
    clippy(shell, report)?;

    let features = match databases.features {
        None => vec!["--all-features"],
        Some(features) => vec!["--features", features],
    };
    report.step("tests", || {
        // One command for tests and examples in the documentation: `--doc` alone would leave out packages without
        // a library, and with them the features that they ask of Diesel, and build it all once more.
        let mut command = shell.cargo(&["test", "--workspace"]);
        command.args(&features).arg("--no-fail-fast");
        for engine in ENGINES {
            // Without servers the variable must not lead the tests to one.
            command.env_remove(engine.variable());
        }
        command.envs(servers.iter().flat_map(Database::environment));
        shell.run(command)
    })?;
    documentation(shell, report)?;
    report.step("packages", || packages(shell))?;

    if databases.sqlite {
        report.step("example git-history, SQLite", || git_history(shell, None))?;
    }
    for server in servers.iter() {
        report.try_step(&format!("example git-history, {}", server.name), || {
            if server.is_private() {
                git_history(shell, Some(&server.url)).map(|()| Done::Passed)
            } else {
                // The example makes its tables where it is told to; a database of the user's is not for that.
                Ok(Done::Skipped("only on a private server".to_owned()))
            }
        })?;
    }
    report.try_step("clean tree", || {
        clean(before.as_deref(), tree(shell)?.as_deref())
    })
}

fn format(shell: &Shell, report: &mut Report) -> Result<()> {
    report.try_step("format", || {
        if !has(shell, "fmt") {
            return Ok(Done::Skipped(
                "not installed: rustup component add rustfmt".to_owned(),
            ));
        }
        shell
            .run(shell.cargo(&["fmt", "--all", "--check"]))
            .map(|()| Done::Passed)
    })
}

fn clippy(shell: &Shell, report: &mut Report) -> Result<()> {
    report.try_step("clippy", || {
        if !has(shell, "clippy") {
            return Ok(Done::Skipped(
                "not installed: rustup component add clippy".to_owned(),
            ));
        }
        let clippy = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ];
        shell.run(shell.cargo(&clippy)).map(|()| Done::Passed)
    })
}

/// Not every toolchain has the tools beside the compiler.
fn has(shell: &Shell, tool: &str) -> bool {
    shell.output(shell.cargo(&[tool, "--version"])).is_ok()
}

fn documentation(shell: &Shell, report: &mut Report) -> Result<()> {
    report.step("documentation", || {
        let mut doc = shell.cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        shell.run(doc)
    })
}

/// The crates can be published: each builds from nothing but what is in its package, and the migrations are in it.
fn packages(shell: &Shell) -> Result<()> {
    let mut package = shell.cargo(&["package", "--allow-dirty", "--features", PACKAGE_FEATURES]);
    package.args(PUBLISHED.iter().flat_map(|name| ["--package", name]));
    shell.run(package)?;

    let list = shell.cargo(&[
        "package",
        "--allow-dirty",
        "--list",
        "--package",
        "oplog-diesel",
    ]);
    let listed = shell.output(list)?;
    let listed: BTreeSet<&Path> = listed.lines().map(Path::new).collect();
    let files = files(&shell.root.join("migrations"))?;
    let missing = files
        .iter()
        .filter_map(|file| file.strip_prefix(&shell.root).ok())
        .find(|file| !listed.contains(file));
    match missing {
        Some(file) => Err(Error::new(format!(
            "{} is not in the package of oplog-diesel",
            file.display()
        ))),
        None if files.is_empty() => Err(Error::new("there are no migrations")),
        None => Ok(()),
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries =
            fs::read_dir(&folder).map_err(cannot(format!("list {}", folder.display())))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                todo.push(path)
            } else {
                found.push(path)
            }
        }
    }
    Ok(found)
}

/// The README's first command on this repository; it compares every row itself and fails at a difference.
fn git_history(shell: &Shell, url: Option<&str>) -> Result<()> {
    let mut example = shell.cargo(&[
        "run",
        "--release",
        "--package",
        "git-history",
        "--",
        "--limit",
        "200",
        "--json",
    ]);
    if let Some(url) = url {
        example.args(["--database-url", url]);
    }
    shell.run(example)
}

/// What git says about the working tree; `None` without git or outside a repository.
fn tree(shell: &Shell) -> Result<Option<String>> {
    let mut git = Command::new("git");
    git.args(["status", "--porcelain"]).current_dir(&shell.root);
    match shell.output(git) {
        Ok(status) => Ok(Some(status)),
        Err(Error::Failed(_)) => Ok(None),
        Err(Error::Interrupted) => Err(Error::Interrupted),
    }
}

/// Tests clean up after themselves and write no file that is not ignored.
fn clean(before: Option<&str>, after: Option<&str>) -> Result<Done> {
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(Done::Skipped(
            "git is not installed, or this is no repository".to_owned(),
        ));
    };
    let known: BTreeSet<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().filter(|line| !known.contains(line)).collect();
    if new.is_empty() {
        Ok(Done::Passed)
    } else {
        Err(Error::new(format!(
            "the run changed files that are not ignored:\n  {}",
            new.join("\n  ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_run_changed_counts() {
        assert!(matches!(
            clean(Some(" M a\n"), Some(" M a\n")),
            Ok(Done::Passed)
        ));
        assert!(matches!(
            clean(Some(" M a\n"), Some(" M a\n?? b\n")),
            Err(Error::Failed(_))
        ));
        assert!(matches!(clean(Some(" M a\n"), Some("")), Ok(Done::Passed)));
        assert!(matches!(clean(None, None), Ok(Done::Skipped(_))));
    }
}
