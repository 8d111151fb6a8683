//! Flips one stored byte in a copy of the log, and looks who notices.

use std::path::Path;

use oplog_diesel::{Finding, Oplog};

use crate::database::{Database, Place};
use crate::error::{Error, line};
use crate::model::AGGREGATE;

/// What was flipped and who found it.
#[derive(Debug)]
pub struct Tampering {
    /// Sequence of the entry that was changed.
    pub sequence: u64,
    /// Which byte of its envelope was changed, from 0.
    pub byte: usize,
    /// Length of the envelope.
    pub len: usize,
    /// What the check of the structure said, which needs no key.
    pub structure: Vec<String>,
    /// What opening the entry said.
    pub opening: Option<String>,
    /// Both named the entry, and neither had anything to say before.
    pub found: bool,
}

/// Changes one byte in the middle of the middle entry of a copy of the log.
pub fn tamper<D: Database>(
    oplog: &Oplog,
    conn: &mut D,
    place: &Place,
    folder: &Path,
    entries: u64,
) -> Result<Tampering, Error> {
    let untouched = oplog.verify_structure(conn)?;
    let mut copy = conn.copy_log(place, folder)?;
    let sequence = entries.div_ceil(2);
    let at = i64::try_from(sequence).unwrap_or(i64::MAX);
    let mut envelope = copy.conn.envelope(at)?;
    let (byte, len) = (envelope.len() / 2, envelope.len());
    envelope[byte] ^= 1;
    copy.conn.set_envelope(at, &envelope)?;

    let structure = oplog.verify_structure(&mut copy.conn)?;
    let named = structure
        .findings
        .iter()
        .any(|finding| names(finding, sequence));
    let opening = open(oplog, &mut copy.conn, sequence)?;
    Ok(Tampering {
        sequence,
        byte,
        len,
        found: untouched.is_intact() && named && opening.is_some(),
        structure: structure.findings.iter().map(ToString::to_string).collect(),
        opening,
    })
}

/// Whether the finding points at the entry. The hash of a changed entry is not the one that its
/// successor holds, or the ticket if it has none, so there the chain breaks.
fn names(finding: &Finding, changed: u64) -> bool {
    match finding {
        Finding::Entry {
            aggregate,
            sequence,
            ..
        } => aggregate == AGGREGATE && (changed..=changed + 1).contains(sequence),
        Finding::Ticket {
            aggregate, ticket, ..
        } => aggregate == AGGREGATE && *ticket == changed + 1,
        _ => false,
    }
}

/// What opening the entry says, `None` if it opens.
fn open<D: Database>(oplog: &Oplog, conn: &mut D, sequence: u64) -> Result<Option<String>, Error> {
    for stored in oplog
        .entries(conn)
        .aggregate(AGGREGATE)
        .from_sequence(sequence)
        .to_sequence(sequence)
    {
        let opened = match stored {
            Ok(stored) => oplog.open_entry(&stored).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            return Ok(Some(line(&error)));
        }
    }
    Ok(None)
}
