//! Everything that is measured, in the order in which it is.

use std::time::{Duration, Instant};

use crate::engine::{CommitMode, Engine};
use crate::machine::{self, Cores};
use crate::measure::{self, Effort, Sharing, THREADS, WORK};
use crate::results::Record;
use crate::table;
use crate::variant::{Operation, PLAIN_CACHED, Result, Variant};

const ROWS: [usize; 3] = [1, 10, 100];
const PROFILE: Duration = Duration::from_secs(10);

pub struct Plan {
    only: Option<String>,
    effort: Effort,
    cores: Cores,
    favoured: bool,
    begun: Instant,
    steps: usize,
    done: usize,
    records: Vec<Record>,
}

/// A row of the plan: variants that are compared with each other.
#[derive(Clone, Copy, Debug)]
enum Step {
    Alone(Operation, usize),
    Together(Sharing),
}

impl Step {
    fn all() -> Vec<Self> {
        let alone = Operation::ALL
            .into_iter()
            .flat_map(|operation| ROWS.map(|rows| Self::Alone(operation, rows)));
        alone.chain(Sharing::ALL.map(Self::Together)).collect()
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Alone(operation, _) => operation.name(),
            Self::Together(sharing) => sharing.operation(),
        }
    }

    fn rows(self) -> usize {
        match self {
            Self::Alone(_, rows) => rows,
            Self::Together(_) => 1,
        }
    }

    fn variants<E: Engine>(self) -> Vec<Variant<E::Conn>> {
        match self {
            Self::Alone(operation, rows) => E::alone(operation, rows),
            Self::Together(_) => E::together(),
        }
    }
}

impl Plan {
    pub fn new(only: Option<&str>, effort: Effort, cores: Cores) -> Self {
        Plan {
            only: only.map(str::to_owned),
            effort,
            cores,
            favoured: false,
            begun: Instant::now(),
            steps: 0,
            done: 0,
            records: Vec::new(),
        }
    }

    /// Prints what everything is measured on and how, and lets this program go before others.
    pub fn begin(&mut self) {
        self.favoured = machine::favour(None);
        let load = machine::load().map_or(String::new(), |load| {
            format!(", load {load:.1} when it began")
        });
        println!("What a logged write costs\n");
        println!(
            "machine      {} cores, {} {}{load}",
            machine::cores(),
            std::env::consts::OS,
            std::env::consts::ARCH
        );
        println!(
            "cores        {}{}",
            self.cores.about(),
            if self.favoured {
                ", before other work of the machine"
            } else {
                ""
            }
        );
        println!(
            "baseline     `{PLAIN_CACHED}`: the same rows with Diesel and no log, in a transaction, every statement cached"
        );
        println!(
            "ratio        median of a block by the baseline's of the same round: median, least and most of up to {} rounds",
            self.effort.rounds
        );
        println!(
            "threads      {THREADS} where it says so, each with {} ms of sleep in its transaction; medians are of what was committed",
            WORK.as_millis()
        );
    }

    pub fn about<E: Engine>(&self, engine: &E) -> Result<()> {
        let mut title = E::TITLE;
        for line in engine.about()? {
            println!("{title:<12} {line}");
            title = "";
        }
        Ok(())
    }

    /// Prints the label of every row that is wanted.
    pub fn list<E: Engine>(&self) {
        for mode in E::COMMIT_MODES {
            for step in Step::all() {
                for variant in step.variants::<E>() {
                    let label = label::<E>(mode, step, variant.name);
                    if self.wants(&label) {
                        println!("{label}");
                    }
                }
            }
        }
    }

    /// Adds the steps of a database to those that the progress counts.
    pub fn count<E: Engine>(&mut self, measured: bool) {
        if !measured {
            return;
        }
        self.steps += E::COMMIT_MODES
            .iter()
            .flat_map(|mode| Step::all().into_iter().map(move |step| (mode, step)))
            .filter(|(mode, step)| !self.wanted::<E>(mode, *step).is_empty())
            .count();
    }

    /// Whether nothing is wanted of what was counted.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// Measures everything that is wanted of a database and prints a table of each commit mode.
    pub fn measure<E: Engine>(&mut self, engine: &E) -> Result<()> {
        for mode in E::COMMIT_MODES {
            let mut tables = String::new();
            for step in Step::all() {
                let records = self.step(engine, mode, step)?;
                tables += &table::table(&records);
                self.records.extend(records);
            }
            if !tables.is_empty() {
                println!(
                    "{}{tables}",
                    table::section(&format!("{}, {}", E::TITLE, mode.title))
                );
            }
        }
        Ok(())
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Repeats the first row that is wanted. `false` if there is none.
    pub fn profile<E: Engine>(&self, engine: &E) -> Result<bool> {
        for mode in E::COMMIT_MODES {
            for step in Step::all() {
                let Step::Alone(operation, rows) = step else {
                    continue;
                };
                for variant in step.variants::<E>() {
                    let label = label::<E>(mode, step, variant.name);
                    if self.wants(&label) {
                        eprintln!("{label} for {} s", PROFILE.as_secs());
                        measure::profile(
                            engine, mode, operation, rows, variant, PROFILE, self.cores,
                        )?;
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn step<E: Engine>(
        &mut self,
        engine: &E,
        mode: &'static CommitMode,
        step: Step,
    ) -> Result<Vec<Record>> {
        let variants = self.wanted::<E>(mode, step);
        if variants.is_empty() {
            return Ok(Vec::new());
        }
        let left = self.steps.saturating_sub(self.done);
        let effort = self.effort.within(self.begun.elapsed(), left);
        self.done += 1;
        let start = Instant::now();
        eprint!(
            "[{:>2}/{}] {:<44} {:>2} variants",
            self.done,
            self.steps,
            label::<E>(mode, step, ""),
            variants.len()
        );
        let records = match step {
            Step::Alone(operation, rows) => {
                measure::alone(engine, mode, operation, rows, variants, &effort, self.cores)
            }
            Step::Together(sharing) => measure::together(engine, mode, sharing, variants, &effort),
        };
        eprintln!(" {:>6.1} s", start.elapsed().as_secs_f64());
        records
    }

    /// The variants of a step that are wanted, and what they are compared with.
    fn wanted<E: Engine>(&self, mode: &CommitMode, step: Step) -> Vec<Variant<E::Conn>> {
        if let Step::Together(_) = step
            && mode.waits
            && !self.effort.together_waiting
        {
            return Vec::new();
        }
        let all = step.variants::<E>();
        let wanted: Vec<bool> = all
            .iter()
            .map(|variant| self.wants(&label::<E>(mode, step, variant.name)))
            .collect();
        let baselines: Vec<&str> = all
            .iter()
            .zip(&wanted)
            .filter(|(_, wanted)| **wanted)
            .flat_map(|(variant, _)| variant.baselines.iter().copied())
            .collect();
        all.into_iter()
            .zip(wanted)
            .filter(|(variant, wanted)| *wanted || baselines.contains(&variant.name))
            .map(|(variant, _)| variant)
            .collect()
    }

    fn wants(&self, label: &str) -> bool {
        self.only.as_deref().is_none_or(|only| label.contains(only))
    }
}

fn label<E: Engine>(mode: &CommitMode, step: Step, variant: &str) -> String {
    format!(
        "{}/{}/{}/{}/{variant}",
        E::NAME,
        mode.name,
        step.operation(),
        step.rows()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::postgres::Postgres;
    use crate::sqlite::Sqlite;
    use crate::variant::{OPTIMISTIC, PLAIN_ONE_BY_ONE};
    use std::collections::HashSet;

    fn plan(only: Option<&str>) -> Plan {
        Plan::new(only, Effort::QUICK, Cores::Any)
    }

    fn names<E: Engine>(only: &str, step: Step) -> Vec<&'static str> {
        let mode = E::COMMIT_MODES.iter().find(|mode| !mode.waits).unwrap();
        plan(Some(only))
            .wanted::<E>(mode, step)
            .iter()
            .map(|variant| variant.name)
            .collect()
    }

    /// What the ratios need: the baseline first, since it sets the length of the blocks, no two of
    /// the same name, and every baseline among the variants.
    fn check<E: Engine>() {
        for step in Step::all() {
            let variants = step.variants::<E>();
            assert_eq!(variants[0].name, PLAIN_CACHED, "{step:?}");
            let names: HashSet<_> = variants.iter().map(|variant| variant.name).collect();
            assert_eq!(names.len(), variants.len(), "{step:?}");
            for variant in &variants {
                assert!(!variant.baselines.is_empty(), "{}", variant.name);
                assert!(
                    variant.baselines.iter().all(|name| names.contains(name)),
                    "{}",
                    variant.name
                );
            }
        }
    }

    #[test]
    fn the_lists_of_variants_are_well_formed() {
        check::<Sqlite>();
        check::<Postgres>();
    }

    #[test]
    fn a_row_brings_its_baselines_along() {
        let many = Step::Alone(Operation::Insert, 10);
        assert_eq!(
            names::<Sqlite>("insert/10/logged_insert, one by one", many),
            [PLAIN_ONE_BY_ONE, "logged_insert, one by one"]
        );
        assert_eq!(
            names::<Postgres>("/late", Step::Together(Sharing::OneEach)),
            [PLAIN_CACHED, "late", OPTIMISTIC]
        );
        assert!(names::<Sqlite>("postgres", many).is_empty());
    }

    #[test]
    fn a_quick_run_has_many_threads_only_where_nothing_waits() {
        let steps = |effort| {
            let mut plan = Plan::new(None, effort, Cores::Any);
            plan.count::<Sqlite>(true);
            plan.steps
        };
        let sharings = Sharing::ALL.len();
        assert_eq!(steps(Effort::FULL), 2 * Step::all().len());
        assert_eq!(steps(Effort::QUICK), 2 * Step::all().len() - sharings);
    }

    #[test]
    fn labels_tell_everything_apart() {
        let mut labels = HashSet::new();
        for mode in Sqlite::COMMIT_MODES {
            for step in Step::all() {
                for variant in step.variants::<Sqlite>() {
                    let label = label::<Sqlite>(mode, step, variant.name);
                    assert!(labels.insert(label.clone()), "{label}");
                }
            }
        }
        assert!(labels.contains("sqlite/normal/insert/1/logged_insert"));
    }
}
