//! The results for people.

use std::fmt::Write as _;

use crate::measure::{Sharing, THREADS, WORK};
use crate::results::{Record, Together};
use crate::variant::PLAIN_CACHED;

const WIDTH: usize = 98;
/// Columns of a bar for the baseline's time.
const BAR_OF_ONE: f64 = 5.0;
const BAR_MAX: usize = 30;

/// A heading over the tables of a database and commit mode.
pub fn section(title: &str) -> String {
    format!(
        "\n━━ {title} {}\n",
        "━".repeat(WIDTH.saturating_sub(title.chars().count() + 4))
    )
}

/// The table of one row of the plan: a line for each variant.
pub fn table(records: &[Record]) -> String {
    match records.first() {
        None => String::new(),
        Some(first) if first.together.is_some() => together(first, records),
        Some(first) => alone(first, records),
    }
}

fn alone(first: &Record, records: &[Record]) -> String {
    let title = format!(
        "{}, {} {}",
        first.operation,
        first.rows,
        if first.rows == 1 { "row" } else { "rows" }
    );
    let mut out = format!(
        "\n{title:<36} statements      median   ratio\n{}\n",
        "─".repeat(WIDTH)
    );
    for (at, record) in records.iter().enumerate() {
        let again = at > 0 && records[at - 1].variant == record.variant;
        line(&mut out, record, again);
    }
    out
}

fn line(out: &mut String, record: &Record, again: bool) {
    let name = name(record, again);
    let bar = bar(record.ratio_median);
    let statements = record.statements;
    let median = time(record.median_us);
    // Writing to a String does not fail.
    let _ = match record.variant == record.baseline {
        true => writeln!(out, "{name:<36} {statements:>10} {median:>11}   1.00"),
        false => writeln!(
            out,
            "{name:<36} {statements:>10} {median:>11} {:>6.2}  {:<14} {bar}{}",
            record.ratio_median,
            format!("{:.2}–{:.2}", record.ratio_min, record.ratio_max),
            if again { String::new() } else { other(record) }
        ),
    };
}

fn together(first: &Record, records: &[Record]) -> String {
    let hot = first.operation == Sharing::OneAggregate.operation();
    let title = format!(
        "insert, {}, {THREADS} threads, {} ms of work inside",
        if hot {
            "one hot aggregate"
        } else {
            "one aggregate per thread"
        },
        WORK.as_millis()
    );
    let mut out = format!(
        "\n{title}\n{:<36} {:>10} {:>11} {:>6}  {:<14} {:>12}\n{}\n",
        "",
        "commits/s",
        "median",
        "rate",
        "",
        "aborts/commit",
        "─".repeat(WIDTH)
    );
    for (at, record) in records.iter().enumerate() {
        let again = at > 0 && records[at - 1].variant == record.variant;
        if let Some(together) = &record.together {
            line_together(&mut out, record, together, again);
        }
    }
    out
}

fn line_together(out: &mut String, record: &Record, together: &Together, again: bool) {
    let name = name(record, again);
    let rate = grouped(together.commits_per_second);
    let median = time(record.median_us);
    let range = match record.variant == record.baseline {
        true => String::new(),
        false => format!(
            "{:.2}–{:.2}",
            together.commits_ratio_min, together.commits_ratio_max
        ),
    };
    let _ = writeln!(
        out,
        "{name:<36} {rate:>10} {median:>11} {:>6.2}  {range:<14} {:>12.2}",
        together.commits_ratio_median, together.aborts_per_commit
    );
}

/// The variant; where it was named already, what else it is compared with.
fn name(record: &Record, again: bool) -> String {
    if again {
        format!("    to {}", record.baseline)
    } else {
        format!("  {}", record.variant)
    }
}

/// The baseline, where it is not everybody's.
fn other(record: &Record) -> String {
    if record.baseline == PLAIN_CACHED {
        String::new()
    } else {
        format!(" to {}", record.baseline)
    }
}

/// A bar as long as the time, in eighths of a column.
fn bar(ratio: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (ratio * BAR_OF_ONE * 8.0).round() as usize;
    if eighths > BAR_MAX * 8 {
        return format!("{}…", "█".repeat(BAR_MAX));
    }
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}

fn time(micros: f64) -> String {
    if micros < 1_000.0 {
        format!("{micros:.1} µs")
    } else {
        format!("{:.2} ms", micros / 1_000.0)
    }
}

fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::results::example;

    #[test]
    fn bars_are_in_proportion() {
        assert_eq!(bar(1.0), "█████");
        assert_eq!(bar(0.5), "██▌");
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(100.0).chars().last(), Some('…'));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(time(12.34), "12.3 µs");
        assert_eq!(time(1_234.5), "1.23 ms");
        assert_eq!(grouped(1_234_567.2), "1,234,567");
        assert_eq!(grouped(12.0), "12");
    }

    #[test]
    fn a_line_shows_the_ratio_and_its_range() {
        let text = table(&[example()]);
        assert!(text.contains("insert, 1 row"), "{text}");
        let line = text.lines().last().unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "logged_insert",
                "5",
                "300.0",
                "µs",
                "2.00",
                "1.90–2.20",
                "██████████"
            ]
        );
    }

    #[test]
    fn another_baseline_is_named() {
        let record = Record {
            baseline: "plain, cached, autocommit",
            ..example()
        };
        let text = table(&[example(), record.clone()]);
        assert!(text.contains("    to plain, cached, autocommit"), "{text}");
        assert_eq!(text.matches("logged_insert").count(), 1);
        let text = table(&[record]);
        assert!(text.contains("  logged_insert  "), "{text}");
        assert!(text.contains("█ to plain, cached, autocommit"), "{text}");
    }

    #[test]
    fn lines_of_many_threads_show_commits_and_aborts() {
        let record = Record {
            operation: Sharing::OneAggregate.operation(),
            threads: THREADS,
            together: Some(Together {
                commits_per_second: 3_456.0,
                baseline_commits_per_second: 10_000.0,
                commits_ratio_min: 0.3,
                commits_ratio_median: 0.35,
                commits_ratio_max: 0.4,
                aborts_per_commit: 15.25,
            }),
            ..example()
        };
        let text = table(&[record]);
        assert!(text.contains("one hot aggregate"), "{text}");
        for part in ["3,456", "0.35", "0.30–0.40", "15.25"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
