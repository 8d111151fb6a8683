//! Builds the benchmark, brings up a server that commits as a real one does, and runs it.

use crate::error::{Error, Result};
use crate::postgres::Postgres;
use crate::server::Database;
use crate::shell::Shell;

/// What the user asked for. The benchmark itself knows its options; here only those matter that
/// decide whether a server is needed.
#[derive(Debug, PartialEq)]
pub(crate) struct Bench {
    arguments: Vec<String>,
    server: bool,
}

impl Bench {
    /// The arguments after `bench`; `None` if the benchmark would not understand them.
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let mut server = true;
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match *word {
                "all" | "postgres" | "--quick" | "--profile" => {}
                "sqlite" | "--list" => server = false,
                "--only" | "--cores" => drop(rest.next()?),
                _ => return None,
            }
        }
        Some(Self {
            arguments: words.iter().map(|word| (*word).to_owned()).collect(),
            server,
        })
    }
}

/// Measures the write path and leaves `bench/results.json` in the target folder.
pub(crate) fn bench(shell: &Shell, bench: &Bench) -> Result<()> {
    let server = match bench.server {
        true => Some(Database::open(&Postgres::FOR_BENCHMARKS, shell)?),
        false => None,
    };
    let result = build(shell).and_then(|()| run(shell, bench, server.as_ref()));
    if let (Err(Error::Failed(_)), Some(server)) = (&result, &server) {
        server.keep_log(shell);
    }
    result
}

fn build(shell: &Shell) -> Result<()> {
    shell.run(shell.cargo(&["build", "--release", "--package", "oplog-bench"]))
}

fn run(shell: &Shell, bench: &Bench, server: Option<&Database>) -> Result<()> {
    let mut command = shell.cargo(&["run", "--quiet", "--release", "--package", "oplog-bench"]);
    command.arg("--").args(&bench.arguments);
    command
        .arg("--results")
        .arg(shell.target.join("bench").join("results.json"));
    command.envs(server.map(|server| (server.variable, &server.url)));
    shell.run(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_started_only_if_it_is_needed() {
        let server = |words: &[&str]| Bench::parse(words).map(|bench| bench.server);
        assert_eq!(server(&[]), Some(true));
        assert_eq!(server(&["--quick", "sqlite"]), Some(false));
        assert_eq!(server(&["postgres", "--only", "sqlite"]), Some(true));
        assert_eq!(server(&["--list"]), Some(false));
    }

    #[test]
    fn what_the_benchmark_does_not_know_is_wrong_usage() {
        for words in [&["mysql"][..], &["--only"], &["--results", "x"]] {
            assert_eq!(Bench::parse(words), None, "{words:?}");
        }
    }
}
