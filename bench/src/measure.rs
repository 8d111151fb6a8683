//! Runs the variants of one row of the plan, block by block, and compares them.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::{CommitMode, Engine};
use crate::lane::{Lane, Subject, Worker};
use crate::machine::Cores;
use crate::results::{Record, Together};
use crate::stats::{Ratios, mean, median, micros, rotation};
use crate::variant::{Inside, Operation, Over, Result, Variant};

/// How long is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of blocks on one connection.
    pub rounds: usize,
    /// After this no further round begins, unless there were too few to compare.
    pub time_max: Duration,
    /// A block's length, as far as the baseline goes.
    pub block: Duration,
    /// Transactions of a block, whatever its length.
    pub transactions: (usize, usize),
    /// Whether many threads are measured also where commits wait for the disk.
    pub together_waiting: bool,
    /// Rounds of blocks with many threads.
    pub together_rounds: usize,
    /// Length of a block with many threads.
    pub together_block: Duration,
    /// What everything may take. On a machine that is slow or busy, rounds are left out for it.
    pub total: Duration,
}

impl Effort {
    pub const FULL: Self = Effort {
        rounds: 25,
        time_max: Duration::from_secs(15),
        block: Duration::from_millis(12),
        transactions: (20, 400),
        together_waiting: true,
        together_rounds: 5,
        together_block: Duration::from_millis(1_000),
        total: Duration::from_secs(14 * 60),
    };
    pub const QUICK: Self = Effort {
        rounds: 6,
        time_max: Duration::from_millis(800),
        block: Duration::from_millis(5),
        transactions: (10, 150),
        together_waiting: false,
        together_rounds: 3,
        together_block: Duration::from_millis(300),
        total: Duration::from_secs(80),
    };

    /// The same for one of `left` rows of the plan, of which all before took this long.
    pub fn within(&self, elapsed: Duration, left: usize) -> Self {
        let share = self.total.saturating_sub(elapsed) / u32::try_from(left.max(1)).unwrap_or(1);
        Effort {
            time_max: self.time_max.min(share),
            ..*self
        }
    }

    /// Whether no further round begins.
    fn is_over(&self, round: usize, start: Instant) -> bool {
        round >= ROUNDS_MIN && start.elapsed() > self.time_max
    }
}

/// What many threads do to aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    OneAggregate,
    OneEach,
}

impl Sharing {
    pub const ALL: [Self; 2] = [Self::OneAggregate, Self::OneEach];

    pub fn operation(self) -> &'static str {
        match self {
            Self::OneAggregate => "insert_hot_aggregate",
            Self::OneEach => "insert_own_aggregate",
        }
    }

    fn team(self, number: usize) -> i64 {
        match self {
            Self::OneAggregate => 1,
            Self::OneEach => 1 + number as i64,
        }
    }
}

pub const THREADS: usize = 32;
pub const WORK: Duration = Duration::from_millis(2);

/// Rounds without which a median says little.
const ROUNDS_MIN: usize = 3;
/// Beyond the five executions after which PostgreSQL decides on a plan.
const WARM_UP: usize = 12;
/// The same for each of many threads, which have only to know their statements.
const WARM_UP_TOGETHER: usize = 3;

/// What was measured of one variant.
#[derive(Debug, Default)]
struct Measured {
    name: &'static str,
    baselines: &'static [&'static str],
    statements: u64,
    /// By round.
    medians: Vec<f64>,
    /// By round.
    means: Vec<f64>,
    /// By round, with many threads.
    rates: Vec<f64>,
    transactions: u64,
    aborts: u64,
}

/// What all records of a row of the plan have in common.
#[derive(Clone, Copy)]
struct Row {
    database: &'static str,
    commit_mode: &'static str,
    operation: &'static str,
    rows: usize,
    threads: usize,
}

/// Measures variants on one connection each.
pub fn alone<E: Engine>(
    engine: &E,
    mode: &'static CommitMode,
    operation: Operation,
    rows: usize,
    variants: Vec<Variant<E::Conn>>,
    effort: &Effort,
    cores: Cores,
) -> Result<Vec<Record>> {
    let measured = on_a_thread(|| {
        cores.place_client()?;
        let mut lanes = Vec::new();
        for variant in variants {
            let mut lane = Lane::new(engine, mode, operation, rows, variant)?;
            lane.begin(cores)?;
            lanes.push(lane);
        }
        let mut warm = Vec::new();
        for lane in &mut lanes {
            lane.refill(WARM_UP)?;
            let times: Vec<f64> = (0..WARM_UP)
                .map(|_| lane.run().map(micros))
                .collect::<Result<_>>()?;
            warm.push(median(&times).unwrap_or_default());
        }
        // The baseline comes first in every list, and a block is as many transactions for all.
        let block = transactions(effort, warm.first().copied().unwrap_or_default());

        let mut measured: Vec<Measured> = lanes.iter().map(Measured::of).collect();
        let start = Instant::now();
        for round in 0..effort.rounds {
            if effort.is_over(round, start) {
                break;
            }
            for index in rotation(lanes.len(), round) {
                let lane = &mut lanes[index];
                lane.refill(block)?;
                let times: Vec<f64> = (0..block)
                    .map(|_| lane.run().map(micros))
                    .collect::<Result<_>>()?;
                measured[index].block(&times, effort.block);
            }
        }
        for lane in &mut lanes {
            lane.finish()?;
        }
        Ok(measured)
    })?;
    let row = Row {
        database: E::NAME,
        commit_mode: mode.name,
        operation: operation.name(),
        rows,
        threads: 1,
    };
    Ok(compare(row, &measured))
}

/// Measures variants with many threads at once.
pub fn together<E: Engine>(
    engine: &E,
    mode: &'static CommitMode,
    sharing: Sharing,
    variants: Vec<Variant<E::Conn>>,
    effort: &Effort,
) -> Result<Vec<Record>> {
    let mut crews = Vec::new();
    for variant in variants {
        let mut lane = Lane::new(engine, mode, Operation::Insert, 1, variant)?;
        let mut workers = Vec::new();
        let idle = Inside::new(Duration::ZERO);
        for number in 0..THREADS {
            let mut worker = lane.worker(number, sharing.team(number))?;
            for _ in 0..WARM_UP_TOGETHER {
                lane.subject.run(&mut worker, &idle)?;
            }
            lane.begin_worker(&mut worker)?;
            workers.push(worker);
        }
        crews.push((lane, workers));
    }
    let mut measured: Vec<Measured> = crews.iter().map(|(lane, _)| Measured::of(lane)).collect();
    let start = Instant::now();
    for round in 0..effort.together_rounds {
        if effort.is_over(round, start) {
            break;
        }
        for index in rotation(crews.len(), round) {
            let (lane, workers) = &mut crews[index];
            let block = block_together(&lane.subject, workers, effort.together_block)?;
            measured[index].block(&block.times, effort.together_block);
            measured[index].rates.push(block.rate);
            measured[index].aborts += block.aborts;
        }
    }
    for (lane, _) in &mut crews {
        lane.finish()?;
    }
    let row = Row {
        database: E::NAME,
        commit_mode: mode.name,
        operation: sharing.operation(),
        rows: 1,
        threads: THREADS,
    };
    Ok(compare(row, &measured))
}

struct Block {
    times: Vec<f64>,
    rate: f64,
    aborts: u64,
}

/// All threads at work for a while. What is committed after its end is not counted.
fn block_together<C: Send>(
    subject: &Subject<C>,
    workers: &mut [Worker<C>],
    length: Duration,
) -> Result<Block> {
    let inside = Inside::new(WORK);
    let ready = Barrier::new(workers.len() + 1);
    let before = subject.committed();
    let (times, elapsed) = thread::scope(|scope| -> Result<_> {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let (inside, ready) = (&inside, &ready);
                scope.spawn(move || {
                    ready.wait();
                    let mut times = Vec::new();
                    while !inside.is_over() {
                        match subject.run(worker, inside) {
                            Ok(took) if !inside.is_over() => times.push(micros(took)),
                            Ok(_) => {}
                            Err(failure) if failure.is::<Over>() => {}
                            Err(failure) => return Err(failure),
                        }
                    }
                    Ok(times)
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        thread::sleep(length);
        inside.end();
        let elapsed = start.elapsed();
        let mut times = Vec::new();
        for thread in threads {
            times.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok((times, elapsed))
    })?;
    let committed = subject.committed() - before;
    Ok(Block {
        rate: times.len() as f64 / elapsed.as_secs_f64(),
        times,
        aborts: inside.runs().saturating_sub(committed),
    })
}

/// Repeats one variant and nothing else, for a profiler.
pub fn profile<E: Engine>(
    engine: &E,
    mode: &'static CommitMode,
    operation: Operation,
    rows: usize,
    variant: Variant<E::Conn>,
    length: Duration,
    cores: Cores,
) -> Result<()> {
    const BLOCK: usize = 100;
    on_a_thread(|| {
        cores.place_client()?;
        let mut lane = Lane::new(engine, mode, operation, rows, variant)?;
        lane.begin(cores)?;
        if let Some(process) = lane.server_process()? {
            eprintln!("server process {process}");
        }
        let mut times = Vec::new();
        let start = Instant::now();
        while start.elapsed() < length {
            lane.refill(BLOCK)?;
            for _ in 0..BLOCK {
                times.push(micros(lane.run()?));
            }
        }
        println!(
            "{} transactions, median {:.1} µs, mean {:.1} µs, {} statements each",
            times.len(),
            median(&times).unwrap_or_default(),
            mean(&times).unwrap_or_default(),
            lane.statements
        );
        lane.finish()
    })
}

impl Measured {
    fn of<E: Engine>(lane: &Lane<'_, E>) -> Self {
        Measured {
            name: lane.subject.variant.name,
            baselines: lane.subject.variant.baselines,
            statements: lane.statements,
            ..Measured::default()
        }
    }

    fn block(&mut self, times: &[f64], length: Duration) {
        // Where nothing was committed, a transaction takes at least the whole block.
        self.medians.push(median(times).unwrap_or(micros(length)));
        self.means.push(mean(times).unwrap_or(micros(length)));
        self.transactions += times.len() as u64;
    }
}

/// Work on a thread of its own, which is placed on a core and gone afterwards.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| "the measuring thread panicked")?
}

/// Transactions of a block, if the baseline's take as long as this.
fn transactions(effort: &Effort, baseline_us: f64) -> usize {
    let (least, most) = effort.transactions;
    let fitting = micros(effort.block) / baseline_us.max(1.0);
    (fitting as usize).clamp(least, most)
}

/// A record for each variant and each of its baselines.
fn compare(row: Row, measured: &[Measured]) -> Vec<Record> {
    let mut records = Vec::new();
    for variant in measured {
        // What has no baseline among the measured is compared to itself, as a baseline is.
        let mut baselines: Vec<&Measured> = measured
            .iter()
            .filter(|other| variant.baselines.contains(&other.name))
            .collect();
        if baselines.is_empty() {
            baselines.push(variant);
        }
        records.extend(
            baselines
                .into_iter()
                .filter_map(|baseline| record(row, variant, baseline)),
        );
    }
    records
}

fn record(row: Row, variant: &Measured, baseline: &Measured) -> Option<Record> {
    let ratios = Ratios::of_pairs(&variant.medians, &baseline.medians)?;
    let together = Ratios::of_pairs(&variant.rates, &baseline.rates).and_then(|commits| {
        Some(Together {
            commits_per_second: median(&variant.rates)?,
            baseline_commits_per_second: median(&baseline.rates)?,
            commits_ratio_min: commits.min,
            commits_ratio_median: commits.median,
            commits_ratio_max: commits.max,
            aborts_per_commit: variant.aborts as f64 / variant.transactions.max(1) as f64,
        })
    });
    Some(Record {
        database: row.database,
        commit_mode: row.commit_mode,
        operation: row.operation,
        rows: row.rows,
        threads: row.threads,
        variant: variant.name,
        baseline: baseline.name,
        blocks: variant.medians.len(),
        transactions: variant.transactions,
        statements: variant.statements,
        median_us: median(&variant.medians)?,
        baseline_median_us: median(&baseline.medians)?,
        mean_us: mean(&variant.means)?,
        baseline_mean_us: mean(&baseline.means)?,
        ratio_min: ratios.min,
        ratio_median: ratios.median,
        ratio_max: ratios.max,
        together,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ROW: Row = Row {
        database: "sqlite",
        commit_mode: "full",
        operation: "insert",
        rows: 1,
        threads: 1,
    };

    fn measured(
        name: &'static str,
        baselines: &'static [&'static str],
        medians: &[f64],
    ) -> Measured {
        Measured {
            name,
            baselines,
            medians: medians.to_vec(),
            means: medians.to_vec(),
            transactions: 10,
            ..Measured::default()
        }
    }

    #[test]
    fn each_variant_is_compared_to_each_of_its_baselines() {
        let all = [
            measured("plain", &["plain"], &[10.0, 20.0]),
            measured("logged", &["plain", "other"], &[20.0, 60.0]),
            measured("other", &["plain"], &[10.0, 10.0]),
        ];
        let records = compare(ROW, &all);
        let short: Vec<_> = records
            .iter()
            .map(|r| {
                (
                    r.variant,
                    r.baseline,
                    r.ratio_min,
                    r.ratio_median,
                    r.ratio_max,
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                ("plain", "plain", 1.0, 1.0, 1.0),
                ("logged", "plain", 2.0, 2.5, 3.0),
                ("logged", "other", 2.0, 4.0, 6.0),
                ("other", "plain", 0.5, 0.75, 1.0),
            ]
        );
        assert_eq!(records[1].median_us, 40.0);
        assert_eq!(records[1].baseline_median_us, 15.0);
        assert!(records.iter().all(|record| record.together.is_none()));
    }

    #[test]
    fn rates_and_aborts_are_told_of_many_threads() {
        let mut plain = measured("plain", &["plain"], &[10.0, 20.0]);
        let mut logged = measured("logged", &["plain"], &[20.0, 60.0]);
        plain.rates = vec![1_000.0, 500.0];
        logged.rates = vec![100.0, 100.0];
        logged.aborts = 15;
        let records = compare(ROW, &[plain, logged]);
        let together = records[1].together.unwrap();
        assert_eq!(together.commits_per_second, 100.0);
        assert_eq!(together.commits_ratio_min, 0.1);
        assert_eq!(together.commits_ratio_max, 0.2);
        assert_eq!(together.aborts_per_commit, 1.5);
    }

    #[test]
    fn what_is_late_is_cut_short_but_never_below_what_a_median_needs() {
        let minute = Duration::from_secs(60);
        let effort = Effort {
            total: 2 * minute,
            time_max: minute,
            ..Effort::FULL
        };
        assert_eq!(effort.within(Duration::ZERO, 1).time_max, minute);
        assert_eq!(effort.within(minute, 2).time_max, minute / 2);
        let late = effort.within(3 * minute, 5);
        assert_eq!(late.time_max, Duration::ZERO);
        let start = Instant::now();
        assert!(!late.is_over(ROUNDS_MIN - 1, start));
        std::thread::sleep(Duration::from_millis(1));
        assert!(late.is_over(ROUNDS_MIN, start));
        assert!(!effort.is_over(ROUNDS_MIN, start));
    }

    #[test]
    fn blocks_are_long_enough_and_not_too_long() {
        let effort = Effort {
            block: Duration::from_millis(10),
            transactions: (20, 400),
            ..Effort::FULL
        };
        assert_eq!(transactions(&effort, 100.0), 100);
        assert_eq!(transactions(&effort, 5_000.0), 20);
        assert_eq!(transactions(&effort, 0.0), 400);
    }
}
