//! The last changes, as the log tells them.

use oplog_diesel::core::{LogRow, Op};
use oplog_diesel::{Message, Oplog, Value};

use crate::database::Database;
use crate::error::Error;
use crate::model::{AGGREGATE, File};
use crate::report::{grouped, printable};

/// How many changes are told, and how many of one commit.
const CHANGES_MAX: usize = 12;
const CHANGES_PER_COMMIT_MAX: usize = 4;

/// Who changed what and when.
#[derive(Debug, PartialEq, Eq)]
pub struct Recent {
    pub when: String,
    pub who: String,
    pub what: String,
}

/// Reads the last changes from the log, latest first.
pub fn recent<D: Database>(
    oplog: &Oplog,
    conn: &mut D,
    last_sequence: u64,
) -> Result<Vec<Recent>, Error> {
    let mut changes = Vec::new();
    for sequence in (1..=last_sequence).rev() {
        for stored in oplog
            .entries(conn)
            .aggregate(AGGREGATE)
            .from_sequence(sequence)
            .to_sequence(sequence)
        {
            let entry = oplog.open_entry(&stored?)?;
            let value = |key| {
                entry
                    .metadata
                    .get(key)
                    .flatten()
                    .next()
                    .unwrap_or("")
                    .to_owned()
            };
            let (when, who) = (value("time"), value("author"));
            let mut tell = |what| {
                changes.push(Recent {
                    when: when.clone(),
                    who: who.clone(),
                    what,
                });
            };
            let told = match entry.messages.len() {
                len if len > CHANGES_PER_COMMIT_MAX => CHANGES_PER_COMMIT_MAX - 1,
                len => len,
            };
            for message in &entry.messages[..told] {
                tell(what(message)?);
            }
            let others = entry.messages.len() - told;
            if others > 0 {
                tell(format!("and {} more", grouped(others as u64)));
            }
        }
        if changes.len() >= CHANGES_MAX {
            break;
        }
    }
    Ok(changes)
}

fn what(message: &Message) -> Result<String, Error> {
    let file: File = message.row()?;
    let path = printable(&file.path);
    Ok(match message.op {
        Op::Create | Op::CreateItems => format!("created {path} ({})", size(file.size)),
        Op::Delete | Op::DeleteItems => format!("deleted {path} ({})", size(file.size)),
        Op::Update => {
            let before = message.previous_values(File::DEF)?;
            let previous = |column: &str| {
                before
                    .as_ref()?
                    .iter()
                    .find(|(def, _)| def.name == column)
                    .map(|(_, value)| value)
            };
            let sized = match previous("size") {
                Some(Value::Sint(before)) => {
                    format!("{} to {}", grouped_signed(*before), size(file.size))
                }
                _ => size(file.size),
            };
            match previous("mode") {
                Some(Value::Sint(before)) => {
                    format!(
                        "changed {path} ({sized}, mode {before:o} to {:o})",
                        file.mode
                    )
                }
                _ => format!("changed {path} ({sized})"),
            }
        }
    })
}

fn size(bytes: Option<i64>) -> String {
    match bytes {
        Some(1) => "1 byte".to_owned(),
        Some(bytes) => format!("{} bytes", grouped_signed(bytes)),
        None => "size unknown".to_owned(),
    }
}

fn grouped_signed(number: i64) -> String {
    grouped(number.unsigned_abs())
}
