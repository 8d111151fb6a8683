use oplog_core::{Envelope, EnvelopeError, EnvelopeLimits, OpenError, entry_hash};

use crate::bound::bounded;
use crate::canary::check_error;
use crate::{forge, seeds};

/// Opening copies the body.
const PER_BYTE: usize = 2;

pub(super) fn run(bytes: &[u8]) {
    let key = forge::data_key();
    let limits = EnvelopeLimits::default();
    let envelope = match bounded(bytes.len(), PER_BYTE, || Envelope::parse(bytes, &limits)) {
        Ok(envelope) => envelope,
        Err(error) => return check_error(&error, &[]),
    };
    check_header(&envelope, bytes);
    check_limit(bytes);

    let opened = bounded(bytes.len(), PER_BYTE, || envelope.open(&key));
    match opened {
        // Only what was sealed with the key opens, and these are the only ones ever made.
        Ok(_) => assert!(seeds::envelopes().iter().any(|(_, sealed)| sealed == bytes)),
        Err(error) => check_open_error(&error, &envelope),
    }
    check_sealed(&envelope, bytes);
}

/// The header says what the bytes say: written again from its fields it is the same.
fn check_header(envelope: &Envelope<'_>, bytes: &[u8]) {
    let header = envelope.header();
    let mut again = b"OPL\x01".to_vec();
    again.push(header.suite as u8);
    again.push(u8::from(header.group.is_some()));
    again.extend((envelope.header_len() as u16).to_le_bytes());
    again.extend(header.log_id.as_bytes());
    again.extend(header.epoch.to_le_bytes());
    again.extend(header.schema.to_le_bytes());
    again.extend(header.sequence.to_le_bytes());
    again.extend(header.created_us.to_le_bytes());
    again.extend(header.previous.as_bytes());
    again.extend(header.metadata_hash.as_bytes());
    again.extend(header.key_id.as_bytes());
    // Nonce and commitment are not shown.
    again.extend(&bytes[again.len()..again.len() + 24 + 32]);
    let name = header.aggregate.as_str().as_bytes();
    again.extend((name.len() as u16).to_le_bytes());
    again.extend(name);
    if let Some(group) = header.group {
        again.extend(group.txn_id.as_bytes());
        again.extend(group.parts.to_le_bytes());
    }
    assert_eq!(again, bytes[..envelope.header_len()]);
    assert!((1..1 << 63).contains(&header.sequence) && (1..=255).contains(&name.len()));
    assert!(header.group.is_none_or(|group| group.parts >= 2));
    assert_eq!(envelope.bytes(), bytes);
    assert_eq!(envelope.entry_hash(), entry_hash(bytes));
}

fn check_limit(bytes: &[u8]) {
    let limits = EnvelopeLimits {
        envelope_len_max: bytes.len() - 1,
    };
    let (len, max) = (bytes.len(), bytes.len() - 1);
    let too_long = EnvelopeError::TooLong { len, max };
    assert_eq!(Envelope::parse(bytes, &limits).unwrap_err(), too_long);
}

fn check_open_error(error: &OpenError, envelope: &Envelope<'_>) {
    let aggregate = envelope.header().aggregate.as_str();
    check_error(error, &[aggregate]);
    let expected = OpenError::Integrity {
        aggregate: envelope.header().aggregate.clone(),
        sequence: envelope.header().sequence,
    };
    // Any other error would tell somebody without the key what is inside.
    assert_eq!(*error, expected);
}

/// A header that is accepted can be sealed, and then no byte of it can change.
fn check_sealed(envelope: &Envelope<'_>, bytes: &[u8]) {
    let (header, body) = bytes.split_at(envelope.header_len());
    let key = forge::data_key();
    let limits = EnvelopeLimits::default();
    let mut sealed = forge::seal(header.to_vec(), &forge::frame(body));
    let genuine = Envelope::parse(&sealed, &limits).expect("the header was accepted before");
    assert_eq!(*genuine.open(&key).expect("it is genuine"), body);
    assert_eq!(genuine.header().aggregate, envelope.header().aggregate);

    let bit = body.iter().fold(0usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
    }) % (sealed.len() * 8);
    sealed[bit / 8] ^= 1 << (bit % 8);
    let opened = Envelope::parse(&sealed, &limits).map(|changed| changed.open(&key).is_ok());
    assert_ne!(opened, Ok(true), "bit {bit} does not count");
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let mut name_len = forge::header("sample", None);
    name_len[182..184].copy_from_slice(&u16::MAX.to_le_bytes());
    let mut header_len = forge::header("sample", None);
    header_len[6..8].copy_from_slice(&u16::MAX.to_le_bytes());
    let body = vec![0; len];
    let mut changed = forge::seal(forge::header("sample", None), &forge::frame(&body));
    *changed.last_mut().expect("it ends with the tag") ^= 1;
    vec![
        changed,
        [forge::header("sample", None), body.clone()].concat(),
        [name_len, body.clone()].concat(),
        [header_len, body.clone()].concat(),
        body,
    ]
}
