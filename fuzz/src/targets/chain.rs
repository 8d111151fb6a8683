//! Every five bytes are one entry that somebody put into the log: which aggregate and log, and how
//! sequence, predecessor, epoch and hash differ from what should come.

use std::collections::BTreeMap;

use oplog_core::{
    Aggregate, ChainCheck, ChainError, Envelope, EnvelopeLimits, Hash, Head, Header, LogId, genesis,
};

use crate::canary::check_error;
use crate::forge;

const NAMES: [&str; 4] = ["a", "b", "account:1", "account:2"];
const FOREIGN_LOG: u8 = 4;
const RESUMES: u8 = 8;
const EDGE: u8 = 16;
/// The largest sequence that a header may have.
const LAST: u64 = (1 << 63) - 1;
/// Sequences at the ends of what a header may have.
const EDGES: [u64; 4] = [1, 2, LAST - 1, LAST];

pub(super) fn run(bytes: &[u8]) {
    let log_id = LogId::from_bytes(forge::LOG_ID);
    let mut chain = ChainCheck::new(log_id);
    let mut heads: BTreeMap<&str, Head> = BTreeMap::new();
    for entry in bytes.chunks_exact(5).take(64) {
        let [what, sequence, previous, epoch, hash] = *entry else {
            return;
        };
        let name = NAMES[usize::from(what & 3)];
        if what & RESUMES != 0 {
            let head = Head {
                next_sequence: u64::from(sequence),
                hash: Hash::from_bytes([previous; 32]),
                epoch: epoch.into(),
            };
            chain.resume(Aggregate::new(name), head);
            heads.insert(name, head);
            continue;
        }
        let head = heads.get(name).copied().unwrap_or(Head {
            next_sequence: 1,
            hash: genesis(&log_id, name),
            epoch: 0,
        });
        let header = header(Forged {
            name,
            log_id: match what & FOREIGN_LOG {
                0 => log_id,
                _ => LogId::from_bytes([what; 16]),
            },
            sequence: match what & EDGE {
                0 => head
                    .next_sequence
                    .wrapping_add_signed(i64::from(sequence.cast_signed()))
                    .clamp(1, LAST),
                _ => EDGES[usize::from(sequence & 3)],
            },
            previous: match previous & 1 {
                0 => head.hash,
                _ => Hash::from_bytes([previous; 32]),
            },
            epoch: epoch.into(),
        });
        let entry_hash = Hash::from_bytes([hash; 32]);
        let findings = chain.findings(&header, entry_hash);
        for finding in &findings {
            check_error(finding, &[name]);
        }
        let found: Vec<_> = findings.iter().map(brief).collect();
        let (expected, next) = expected(&header, entry_hash, &head, &log_id);
        assert_eq!(found, expected);
        if let Some(next) = next {
            heads.insert(name, next);
        }
    }
    let known: Vec<_> = chain
        .heads()
        .map(|(name, head)| (name.as_str(), *head))
        .collect();
    assert_eq!(known, heads.into_iter().collect::<Vec<_>>());
}

struct Forged {
    name: &'static str,
    log_id: LogId,
    sequence: u64,
    previous: Hash,
    epoch: u32,
}

fn header(forged: Forged) -> Header {
    let mut header = forge::header(forged.name, None);
    header[8..24].copy_from_slice(forged.log_id.as_bytes());
    header[24..28].copy_from_slice(&forged.epoch.to_le_bytes());
    header[30..38].copy_from_slice(&forged.sequence.to_le_bytes());
    header[46..78].copy_from_slice(forged.previous.as_bytes());
    header.extend([0; 16]);
    Envelope::parse(&header, &EnvelopeLimits::default())
        .expect("a header with any such fields is read")
        .into_header()
}

/// What must be found, and the head afterwards if it moves. Written from `FORMAT.md`, section
/// "Chain", and the documentation of [`ChainCheck`].
fn expected(
    header: &Header,
    entry_hash: Hash,
    head: &Head,
    log_id: &LogId,
) -> (Vec<&'static str>, Option<Head>) {
    if header.log_id != *log_id {
        return (vec!["log"], None);
    }
    if header.sequence < head.next_sequence {
        return (vec!["duplicate"], None);
    }
    let findings = [
        (header.sequence != head.next_sequence, "gap"),
        (header.previous != head.hash, "broken"),
        (header.epoch < head.epoch, "epoch"),
    ];
    let next = Head {
        next_sequence: header.sequence + 1,
        hash: entry_hash,
        epoch: head.epoch.max(header.epoch),
    };
    let findings = findings
        .into_iter()
        .filter_map(|(is, what)| is.then_some(what));
    (findings.collect(), Some(next))
}

fn brief(error: &ChainError) -> &'static str {
    match error {
        ChainError::WrongLog { .. } => "log",
        ChainError::SequenceGap { .. } => "gap",
        ChainError::Duplicate { .. } => "duplicate",
        ChainError::ChainBroken { .. } => "broken",
        ChainError::EpochRegress { .. } => "epoch",
        _ => panic!("add the new finding here"),
    }
}

/// Entries are fed one by one, and no more than a few heads are kept.
pub(super) fn hostile(_: usize) -> Vec<Vec<u8>> {
    Vec::new()
}
