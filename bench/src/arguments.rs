//! The command line.

use std::path::PathBuf;

use crate::machine::Cores;

pub const HELP: &str = "\
What a logged write costs

Usage: cargo xtask bench [OPTIONS] [DATABASE]

  DATABASE           sqlite, postgres or all (default)

Options:
  --quick            Fewer and shorter blocks, and many threads only where commits do not wait for
                     the disk: under two minutes
  --only SUBSTRING   Only the rows whose label contains this, and their baselines; a label is
                     DATABASE/COMMIT_MODE/OPERATION/ROWS/VARIANT
  --list             Print the labels and measure nothing
  --profile          Repeat the first row that --only finds for ten seconds and nothing else:
                     for a profiler
  --cores WHERE      same   client and server process on one core (default where the system can)
                     apart  on one core each
                     any    where the system puts them
  --results FILE     Where to write the results (cargo xtask: target/bench/results.json)
  --help             Print this text

Environment:
  OPLOG_BENCH_POSTGRES_URL   The server to measure. `cargo xtask bench` starts one with fsync on
                             unless it is set
";

#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    pub sqlite: bool,
    pub postgres: bool,
    pub quick: bool,
    pub only: Option<String>,
    pub list: bool,
    pub profile: bool,
    pub cores: Option<Cores>,
    pub results: PathBuf,
}

/// `None` to print the help; an error is a sentence for the user.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        sqlite: true,
        postgres: true,
        quick: false,
        only: None,
        list: false,
        profile: false,
        cores: None,
        results: PathBuf::from("target/bench/results.json"),
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "all" => {}
            "sqlite" => arguments.postgres = false,
            "postgres" => arguments.sqlite = false,
            "--quick" => arguments.quick = true,
            "--only" => arguments.only = Some(value()?),
            "--list" => arguments.list = true,
            "--profile" => arguments.profile = true,
            "--results" => arguments.results = value()?.into(),
            "--cores" => {
                arguments.cores = Some(match value()?.as_str() {
                    "same" => Cores::Same,
                    "apart" => Cores::Apart,
                    "any" => Cores::Any,
                    other => return Err(format!("--cores is same, apart or any, not `{other}`")),
                })
            }
            "--help" | "-h" | "help" => return Ok(None),
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    if !arguments.sqlite && !arguments.postgres {
        return Err("one database, or all".to_owned());
    }
    if arguments.profile && arguments.only.is_none() {
        return Err("--profile needs --only, to know what to repeat".to_owned());
    }
    Ok(Some(arguments))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(line: &str) -> Result<Option<Arguments>, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn everything_is_measured_unless_said_otherwise() {
        let arguments = parsed("").unwrap().unwrap();
        assert!(arguments.sqlite && arguments.postgres && !arguments.quick);
        assert_eq!(arguments.only, None);
    }

    #[test]
    fn options_and_databases_come_in_any_order() {
        let arguments = parsed("--only insert/1 sqlite --quick --cores apart")
            .unwrap()
            .unwrap();
        assert!(arguments.sqlite && !arguments.postgres && arguments.quick);
        assert_eq!(arguments.only.as_deref(), Some("insert/1"));
        assert_eq!(arguments.cores, Some(Cores::Apart));
    }

    #[test]
    fn mistakes_are_told() {
        for line in [
            "--fast",
            "--only",
            "--cores none",
            "--profile",
            "sqlite postgres",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert_eq!(parsed("sqlite --help"), Ok(None));
    }
}
