//! What a logged write costs, in relation to the same write without a log.
//!
//! Every variant has tables of its own. The variants of a table run in blocks, one after the other,
//! round after round, and each round begins with another one. A ratio is that of two blocks of one
//! round, so that a machine that is busy for a while slows down both. `cargo xtask bench` builds and
//! runs it and brings the server along; `variants.rs` is the list of what is measured.
#![forbid(unsafe_code)]
#![allow(
    clippy::duplicate_mod,
    reason = "the variants are written once and compiled for the connection of each database"
)]

mod arguments;
mod engine;
mod feed;
mod lane;
mod machine;
mod measure;
mod model;
mod plan;
mod postgres;
mod results;
mod sqlite;
mod statement;
mod stats;
mod table;
mod variant;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use arguments::{Arguments, HELP};
use machine::Cores;
use measure::Effort;
use plan::Plan;
use postgres::Postgres;
use sqlite::Sqlite;
use variant::Result;

fn main() -> ExitCode {
    let arguments = match arguments::parse(env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("error: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let cores = match arguments.cores {
        None if Cores::Same.is_possible() => Cores::Same,
        None => Cores::Any,
        Some(cores) if cores.is_possible() => cores,
        Some(_) => return Err("this machine can't keep client and server on such cores".into()),
    };
    let effort = if arguments.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let mut plan = Plan::new(arguments.only.as_deref(), effort, cores);
    let postgres = match arguments.postgres {
        true => Some(Postgres {
            url: url(arguments)?,
        }),
        false => None,
    };
    if arguments.list {
        if arguments.sqlite {
            plan.list::<Sqlite>();
        }
        if arguments.postgres {
            plan.list::<Postgres>();
        }
        return Ok(());
    }
    if arguments.profile {
        let done = (arguments.sqlite && plan.profile(&Sqlite)?)
            || match &postgres {
                Some(postgres) => plan.profile(postgres)?,
                None => false,
            };
        return done.then_some(()).ok_or_else(|| nothing(arguments));
    }

    let start = Instant::now();
    plan.count::<Sqlite>(arguments.sqlite);
    plan.count::<Postgres>(arguments.postgres);
    if plan.is_empty() {
        return Err(nothing(arguments));
    }
    plan.begin();
    if arguments.sqlite {
        plan.about(&Sqlite)?;
    }
    if let Some(postgres) = &postgres {
        plan.about(postgres)?;
    }
    if arguments.sqlite {
        plan.measure(&Sqlite)?;
    }
    if let Some(postgres) = &postgres {
        plan.measure(postgres)?;
    }
    let records = plan.records();
    results::write(&arguments.results, records)?;
    println!(
        "\n{} records in {}, {:.0} s",
        records.len(),
        arguments.results.display(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn url(arguments: &Arguments) -> Result<String> {
    const VARIABLE: &str = "OPLOG_BENCH_POSTGRES_URL";
    match env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => Ok(url),
        _ if arguments.list => Ok(String::new()),
        _ => Err(format!(
            "{VARIABLE} is not set: run `cargo xtask bench`, or set it to a server with fsync on"
        )
        .into()),
    }
}

fn nothing(arguments: &Arguments) -> variant::Failure {
    format!(
        "no row has `{}` in its label; --list prints them all",
        arguments.only.as_deref().unwrap_or_default()
    )
    .into()
}
