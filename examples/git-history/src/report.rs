//! What the run says, to people or to programs.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::check::Replayed;
use crate::compare::Comparison;
use crate::log::Logged;
use crate::recent::Recent;
use crate::tamper::Tampering;

/// The result of a run, in the form that `--json` prints.
#[derive(Serialize, Debug)]
pub struct Summary {
    /// Commits of the first-parent line that were logged.
    pub commits: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Messages in the entries.
    pub messages: u64,
    /// Rows in the table of files at the end.
    pub rows: u64,
    /// The comparisons, oldest commit first.
    pub compared: Vec<Compared>,
    /// The flipped byte was found.
    pub tamper_found: bool,
    /// Bytes of all entries and their metadata.
    pub log_bytes: u64,
    /// How long the commits took, reading the repository included.
    pub log_seconds: f64,
    /// How long the replay of the whole log took.
    pub replay_seconds: f64,
    /// The most memory the process held, 0 where the system does not tell.
    pub peak_rss_bytes: u64,
}

/// One comparison with Git's tree.
#[derive(Serialize, Debug)]
pub struct Compared {
    /// The commit's id.
    pub commit: String,
    /// Files in Git's tree of the commit.
    pub rows: u64,
    /// Files that are not the same in Git and in the table.
    pub differences: u64,
}

impl Summary {
    /// Nothing differed and the flipped byte was found.
    pub fn is_proof(&self) -> bool {
        self.tamper_found && self.differences() == 0
    }

    fn differences(&self) -> u64 {
        self.compared
            .iter()
            .map(|compared| compared.differences)
            .sum()
    }
}

/// Writes what was logged.
pub fn logged(out: &mut dyn Write, commits: u64, logged: &Logged, bytes: u64) -> io::Result<()> {
    writeln!(
        out,
        "logged      {} commits in {}: {} entries, {} messages, {} bytes",
        grouped(commits),
        seconds(logged.duration),
        grouped(logged.entries),
        grouped(logged.messages),
        grouped(bytes)
    )?;
    if logged.empty_commits > 0 {
        writeln!(
            out,
            "            {} of them changed no file and have no entry",
            grouped(logged.empty_commits)
        )?;
    }
    writeln!(
        out,
        "            {} entries a second, {} messages a second",
        rate(logged.entries, logged.duration),
        rate(logged.messages, logged.duration)
    )
}

/// Writes what was replayed.
pub fn replayed(out: &mut dyn Write, replayed: &Replayed) -> io::Result<()> {
    writeln!(
        out,
        "replayed    {} messages into {} rows in {}: {} messages a second",
        grouped(replayed.messages),
        grouped(replayed.rows),
        seconds(replayed.duration),
        rate(replayed.messages, replayed.duration)
    )
}

/// Writes the head of the comparisons.
pub fn compared_head(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "compared    with Git's own trees")?;
    writeln!(
        out,
        "            {:<12}  {:<25}  {:>9}  differences",
        "commit", "time", "files"
    )
}

/// Writes one comparison.
pub fn compared(out: &mut dyn Write, id: &str, time: &str, found: &Comparison) -> io::Result<()> {
    let differences = match found.differences {
        0 => "none".to_owned(),
        differences => grouped(differences),
    };
    let (id, files) = (&id[..id.len().min(12)], grouped(found.rows));
    writeln!(
        out,
        "            {id:<12}  {time:<25}  {files:>9}  {differences}"
    )?;
    for difference in &found.shown {
        writeln!(out, "              {difference}")?;
    }
    Ok(())
}

/// Writes what became of the flipped byte.
pub fn tampered(out: &mut dyn Write, tampering: &Tampering) -> io::Result<()> {
    writeln!(
        out,
        "tampered    flipped a bit of byte {} of {} of entry {} in a copy of the log",
        grouped(tampering.byte as u64),
        grouped(tampering.len as u64),
        grouped(tampering.sequence)
    )?;
    let nothing = "found nothing";
    for finding in &tampering.structure {
        writeln!(out, "            without keys: {finding}")?;
    }
    if tampering.structure.is_empty() {
        writeln!(out, "            without keys: {nothing}")?;
    }
    writeln!(
        out,
        "            opening it: {}",
        tampering.opening.as_deref().unwrap_or(nothing)
    )
}

/// Writes the last changes as a table.
pub fn recent(out: &mut dyn Write, changes: &[Recent]) -> io::Result<()> {
    const WHO_MAX: usize = 28;
    let who = |change: &Recent| shortened(&change.who, WHO_MAX);
    let width = |text: fn(&Recent) -> &str, least: usize| {
        changes
            .iter()
            .map(|change| text(change).chars().count())
            .chain([least])
            .max()
            .unwrap_or(least)
    };
    let when_width = width(|change| &change.when, 4);
    let who_width = width(|change| &change.who, 3).min(WHO_MAX);
    writeln!(out)?;
    writeln!(out, "{:<when_width$}  {:<who_width$}  what", "when", "who")?;
    for change in changes {
        writeln!(
            out,
            "{:<when_width$}  {:<who_width$}  {}",
            change.when,
            who(change),
            change.what
        )?;
    }
    writeln!(out)
}

/// Writes the verdict.
pub fn verdict(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    match summary.differences() {
        0 => writeln!(
            out,
            "The log rebuilt Git's tree exactly at each of {} commits{}",
            summary.compared.len(),
            if summary.tamper_found {
                ", and the flipped byte was found."
            } else {
                "."
            }
        )?,
        differences => writeln!(
            out,
            "FAILED: {} files differ from Git's.",
            grouped(differences)
        )?,
    }
    if !summary.tamper_found {
        writeln!(out, "FAILED: the flipped byte was not found.")?;
    }
    Ok(())
}

/// A path as text for a terminal: what is not UTF-8, a control character or a backslash is escaped.
pub fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A number with a comma between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn rate(count: u64, duration: Duration) -> String {
    let seconds = duration.as_secs_f64().max(1e-6);
    grouped((count as f64 / seconds) as u64)
}

fn shortened(text: &str, chars_max: usize) -> String {
    match text.chars().count() {
        chars if chars <= chars_max => text.to_owned(),
        _ => text.chars().take(chars_max - 1).chain(['…']).collect(),
    }
}

/// The most memory the process held so far, 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let check = |number, expected: &str| assert_eq!(grouped(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(u64::MAX, "18,446,744,073,709,551,615");
    }

    #[test]
    fn any_path_can_be_printed() {
        let check = |path: &[u8], expected: &str| assert_eq!(printable(path), expected);
        check("src/ünï".as_bytes(), "src/ünï");
        check(b"caf\xe9\xff/a", "caf\\xe9\\xff/a");
        check(b"a\\b\n\x1b[31m", "a\\\\b\\n\\u{1b}[31m");
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(shortened("Ann", 3), "Ann");
        assert_eq!(shortened("Änne", 3), "Än…");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_of_memory_is_known() {
        assert!(peak_rss_bytes() > 1 << 20);
    }
}
