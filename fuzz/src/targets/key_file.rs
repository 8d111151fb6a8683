use std::collections::BTreeSet;

use oplog_core::{Kek, KekTextError};

use crate::bound::bounded;
use crate::canary::{check_debug, check_error};
use crate::forge;

/// A line of 57 bytes becomes a key of 32 and an id of 35 bytes, in a vector that was just doubled.
const PER_BYTE: usize = 8;

pub(super) fn run(bytes: &[u8]) {
    // The file is read as text before it is parsed.
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match bounded(bytes.len(), PER_BYTE, || Kek::parse_text(text)) {
        Err(error) => {
            check_error(&error, &[]);
            check_no_line(&error, text);
        }
        Ok(keys) => {
            let lines: Vec<String> = keys.iter().map(|key| key.to_text().to_string()).collect();
            assert_eq!(lines.join("\n"), text.strip_suffix('\n').unwrap_or(text));
            let ids: BTreeSet<_> = keys.iter().map(Kek::id).collect();
            assert_eq!(ids.len(), keys.len());
            for (key, line) in keys.iter().zip(&lines) {
                let again = Kek::parse_line(line).expect("a line of a good text");
                assert_eq!(again.id(), key.id());
                check_debug(key, &[]);
                assert!(!format!("{key:?}").contains(&line["oplog-kek-v1:".len()..]));
            }
        }
    }
}

/// Keys do not hold the canary, so no part of any line may show up.
fn check_no_line(error: &KekTextError, text: &str) {
    let shown = format!("{error} {error:?}");
    for line in text.lines() {
        let secret = line.strip_prefix("oplog-kek-v1:").unwrap_or(line);
        if secret.len() >= 20 && secret.is_ascii() {
            assert!(!shown.contains(&secret[..20]), "{shown}");
        }
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let key = |number: usize| {
        let mut bytes = forge::KEK;
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Kek::from_bytes(bytes).to_text().to_string() + "\n"
    };
    // Comparing every key with every other would be slow only with very many.
    let many: String = (0..len / 8).map(key).collect();
    let twice = key(0).repeat((len / 57).max(2));
    vec![
        many.into_bytes(),
        twice.into_bytes(),
        vec![b'\n'; len],
        vec![b'A'; len],
        format!("oplog-kek-v1:{}", "A".repeat(len)).into_bytes(),
    ]
}
