//! Times the steps of a task and sums them up at its end.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::shell::paint;

pub(crate) struct Report {
    start: Instant,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    took: Duration,
    outcome: Outcome,
}

enum Outcome {
    Passed(String),
    Skipped(String),
    Failed,
    Stopped,
}

/// What a step that did not fail has to say.
pub(crate) enum Done {
    Passed,
    /// Passed, and in which numbers.
    Counted(String),
    /// Not checked, and why.
    Skipped(String),
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            rows: Vec::new(),
        }
    }

    /// Runs a step that either passes or fails.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut value = None;
        self.try_step(name, || {
            value = Some(work()?);
            Ok(Done::Passed)
        })?;
        value.ok_or_else(|| Error::new(format!("step `{name}` has no result")))
    }

    /// Runs a step that this machine may lack the means for.
    pub(crate) fn try_step(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<Done>,
    ) -> Result<()> {
        eprintln!("\n{}", paint("1", name));
        let start = Instant::now();
        let result = work();
        let outcome = match &result {
            Ok(Done::Passed) => Outcome::Passed(String::new()),
            Ok(Done::Counted(numbers)) => Outcome::Passed(numbers.clone()),
            Ok(Done::Skipped(why)) => Outcome::Skipped(why.clone()),
            Err(Error::Interrupted) => Outcome::Stopped,
            Err(Error::Failed(_)) => Outcome::Failed,
        };
        self.rows.push(Row {
            name: name.to_owned(),
            took: start.elapsed(),
            outcome,
        });
        result.map(drop)
    }

    /// Prints one line per step and one for all.
    pub(crate) fn print(&self) {
        eprintln!();
        for Row {
            name,
            took,
            outcome,
        } in &self.rows
        {
            let (code, word, why) = match outcome {
                Outcome::Passed(numbers) if numbers.is_empty() => ("32", "passed ", String::new()),
                Outcome::Passed(numbers) => ("32", "passed ", format!("  {numbers}")),
                Outcome::Skipped(why) => ("33", "skipped", format!("  {why}")),
                Outcome::Failed => ("31;1", "FAILED ", String::new()),
                Outcome::Stopped => ("33", "stopped", String::new()),
            };
            eprintln!(
                "{} {:>7.1} s  {name}{why}",
                paint(code, word),
                took.as_secs_f64()
            );
        }
        let count =
            |test: fn(&Outcome) -> bool| self.rows.iter().filter(|row| test(&row.outcome)).count();
        let passed = count(|outcome| matches!(outcome, Outcome::Passed(_)));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let rest = self.rows.len() - passed - skipped;
        let verdict = if rest == 0 {
            paint("32", "passed ")
        } else {
            paint("31;1", "FAILED ")
        };
        let mut numbers = format!("all: {passed} passed");
        for (number, word) in [(skipped, "skipped"), (rest, "not passed")] {
            if number > 0 {
                numbers += &format!(", {number} {word}");
            }
        }
        eprintln!(
            "{verdict} {:>7.1} s  {numbers}",
            self.start.elapsed().as_secs_f64()
        );
    }
}
