//! The results as a file for programs.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::variant::Result;

/// How one variant compares to one baseline.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Record {
    pub database: &'static str,
    pub commit_mode: &'static str,
    pub operation: &'static str,
    /// Rows of a transaction.
    pub rows: usize,
    pub threads: usize,
    pub variant: &'static str,
    pub baseline: &'static str,
    /// Rounds, in each of which variant and baseline ran a block.
    pub blocks: usize,
    /// Transactions of all blocks that were measured.
    pub transactions: u64,
    /// Statements that a transaction sends, `BEGIN` and `COMMIT` among them: with a server, round
    /// trips.
    pub statements: u64,
    /// The median of the blocks' medians.
    pub median_us: f64,
    pub baseline_median_us: f64,
    /// The mean of the blocks' means, which shows what medians hide: checkpoints, flushes, waits.
    pub mean_us: f64,
    pub baseline_mean_us: f64,
    /// Of the medians of the two blocks of a round, over the rounds.
    pub ratio_min: f64,
    pub ratio_median: f64,
    pub ratio_max: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub together: Option<Together>,
}

/// What many threads did at once.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
pub struct Together {
    pub commits_per_second: f64,
    pub baseline_commits_per_second: f64,
    /// Of the rates of the two blocks of a round.
    pub commits_ratio_min: f64,
    pub commits_ratio_median: f64,
    pub commits_ratio_max: f64,
    pub aborts_per_commit: f64,
}

/// Writes all records as one JSON array.
pub fn write(path: &Path, records: &[Record]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut json = serde_json::to_string_pretty(records)?;
    json.push('\n');
    fs::write(path, json)?;
    Ok(())
}

#[cfg(test)]
pub fn example() -> Record {
    Record {
        database: "postgres",
        commit_mode: "sync",
        operation: "insert",
        rows: 1,
        threads: 1,
        variant: "logged_insert",
        baseline: "plain, cached",
        blocks: 3,
        transactions: 60,
        statements: 5,
        median_us: 300.0,
        baseline_median_us: 150.0,
        mean_us: 310.0,
        baseline_mean_us: 155.0,
        ratio_min: 1.9,
        ratio_median: 2.0,
        ratio_max: 2.2,
        together: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::Value;

    const PROMISED: [&str; 13] = [
        "database",
        "commit_mode",
        "operation",
        "rows",
        "threads",
        "variant",
        "baseline",
        "blocks",
        "median_us",
        "baseline_median_us",
        "ratio_min",
        "ratio_median",
        "ratio_max",
    ];

    #[test]
    fn the_file_is_an_array_of_flat_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench/results.json");
        let together = Record {
            threads: 32,
            together: Some(Together {
                commits_per_second: 3_000.0,
                baseline_commits_per_second: 10_000.0,
                commits_ratio_min: 0.28,
                commits_ratio_median: 0.3,
                commits_ratio_max: 0.31,
                aborts_per_commit: 0.0,
            }),
            ..example()
        };
        write(&path, &[example(), together]).unwrap();

        let records: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(records.len(), 2);
        for record in &records {
            for name in PROMISED {
                assert!(
                    record[name].is_string() || record[name].is_number(),
                    "{name}"
                );
            }
        }
        assert_eq!(records[0]["ratio_median"], 2.0);
        assert_eq!(records[0].get("commits_per_second"), None);
        assert_eq!(records[1]["commits_per_second"], 3_000.0);
        assert_eq!(records[1]["aborts_per_commit"], 0.0);
    }
}
