//! Envelopes and wrapped keys as `FORMAT.md` describes them, made by nothing but this file, the
//! ciphers and the hash. So anything can be sealed, also what the code under test would refuse to
//! write, and the two implementations check each other.

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use hkdf::Hkdf;
use oplog_core::{DataKey, Kek, KeyId, LogId, WrapContext};
use sha2::{Digest, Sha256};

/// The secret of the data key of all seeds.
pub const SECRET: [u8; 32] = bytes_from(0);
/// The id of that key.
pub const KEY_ID: [u8; 16] = bytes_from(0xa0);
/// The log of all seeds.
pub const LOG_ID: [u8; 16] = bytes_from(0x10);
/// The nonce of all seeds: a fixed one is for test data only.
pub const NONCE: [u8; 24] = bytes_from(0x40);
/// The key-encryption key of all seeds.
pub const KEK: [u8; 32] = bytes_from(0x80);

// Offsets of a header.
const NONCE_AT: usize = 126;
const COMMITMENT_AT: usize = 150;
const KEY_ID_AT: usize = 110;
/// Where a header's aggregate begins.
pub const AGGREGATE_AT: usize = 184;

const fn bytes_from<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut index = 0;
    while index < N {
        bytes[index] = first + index as u8;
        index += 1;
    }
    bytes
}

/// The data key of all seeds.
pub fn data_key() -> DataKey {
    DataKey::from_bytes(KeyId::from_bytes(KEY_ID), SECRET)
}

/// The key-encryption key of all seeds.
pub fn kek() -> Kek {
    Kek::from_bytes(KEK)
}

/// What the data key of all seeds is wrapped for.
pub fn context() -> WrapContext<'static> {
    WrapContext {
        log_id: LogId::from_bytes(LOG_ID),
        key_id: KeyId::from_bytes(KEY_ID),
        scope: "default",
        purpose: "entry",
        version: 1,
    }
}

/// A header of the log of all seeds, first in its aggregate, without metadata, to be given to
/// [`seal`], which fills in key, nonce and commitment.
pub fn header(aggregate: &str, group: Option<([u8; 16], u16)>) -> Vec<u8> {
    let name = aggregate.as_bytes();
    let len = AGGREGATE_AT + name.len() + group.map_or(0, |_| 18);
    let mut bytes = b"OPL\x01\x01".to_vec();
    bytes.push(u8::from(group.is_some()));
    bytes.extend((len as u16).to_le_bytes());
    bytes.extend(LOG_ID);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(1_700_000_000_000_000i64.to_le_bytes());
    bytes.extend(hash(&[b"oplog/v1/genesis\0", &LOG_ID, name]));
    bytes.extend(hash(&[b"oplog/v1/metadata\0", &[0; 4]]));
    bytes.extend([0; 16 + 24 + 32]);
    bytes.extend((name.len() as u16).to_le_bytes());
    bytes.extend(name);
    if let Some((txn_id, parts)) = group {
        bytes.extend(txn_id);
        bytes.extend(parts.to_le_bytes());
    }
    bytes
}

/// The inner frame of a queue.
pub fn frame(queue: &[u8]) -> Vec<u8> {
    let len = (queue.len() as u32).to_le_bytes();
    [&[1, 0][..], &len, &len, queue].concat()
}

/// Seals any inner bytes under any header that is long enough, with the key and the nonce of all
/// seeds.
///
/// # Panics
///
/// If the header is shorter than its fixed part.
pub fn seal(mut header: Vec<u8>, inner: &[u8]) -> Vec<u8> {
    let suite = header[4];
    let (key, commitment) = derive(suite);
    header[KEY_ID_AT..NONCE_AT].copy_from_slice(&KEY_ID);
    header[NONCE_AT..COMMITMENT_AT].copy_from_slice(&NONCE);
    header[COMMITMENT_AT..COMMITMENT_AT + 32].copy_from_slice(&commitment);
    let body = encrypt(&key, &NONCE, &header, inner);
    [header, body].concat()
}

/// The data key of all seeds, wrapped under their key-encryption key: `bound` is the key and the
/// hash of the context, or something else.
///
/// # Panics
///
/// Never: the names of the context are short.
pub fn wrap(bound: &[u8]) -> Vec<u8> {
    let context = context().to_bytes().expect("short names");
    let body = encrypt(&KEK, &NONCE, &context, bound);
    [&[1][..], &NONCE, &body].concat()
}

/// What is wrapped for [`context`].
///
/// # Panics
///
/// Never: the names of the context are short.
pub fn bound() -> Vec<u8> {
    let context = context().to_bytes().expect("short names");
    [&SECRET[..], &hash(&[&context])].concat()
}

fn derive(suite: u8) -> ([u8; 32], [u8; 32]) {
    let hkdf = Hkdf::<Sha256>::new(Some(&NONCE), &SECRET);
    let expand = |label: &[u8]| {
        let mut out = [0; 32];
        let info = [label, &[suite], &KEY_ID].concat();
        hkdf.expand(&info, &mut out)
            .expect("32 bytes are no more than HKDF gives");
        out
    };
    (
        expand(b"oplog/v1/entry/key"),
        expand(b"oplog/v1/entry/commit"),
    )
}

fn encrypt(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let payload = Payload {
        msg: plain,
        aad: associated,
    };
    XChaCha20Poly1305::new(key.into())
        .encrypt(nonce.into(), payload)
        .expect("shorter than the cipher's limit")
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}
