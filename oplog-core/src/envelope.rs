use std::fmt;

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::rng;
use crate::{
    AGGREGATE_LEN_MAX, Aggregate, AggregateError, DataKey, Hash, KeyId, LogId, RngError, TxnId,
    hash,
};

/// The longest envelope that is written, and read unless configured otherwise: 16 MiB.
pub const ENVELOPE_LEN_MAX: usize = 16 * 1024 * 1024;
/// The longest envelope that can be configured: 64 MiB.
pub const ENVELOPE_LEN_HARD_MAX: usize = 64 * 1024 * 1024;
/// The largest sequence of an entry: what the column of a database holds, and less than a `u64`, so
/// that there is always a next one to expect.
pub const SEQUENCE_MAX: u64 = i64::MAX as u64;

/// How an envelope is sealed. One byte in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Suite {
    /// Byte 1: XChaCha20-Poly1305 under a key that HKDF-SHA256 derives for this entry alone, with
    /// a commitment to the data key.
    XChaCha20Poly1305 = 1,
}

/// The clear part of a sealed entry. Every byte of it is authenticated.
///
/// Source: `FORMAT.md`, section "Envelope".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// How the entry is sealed.
    pub suite: Suite,
    /// The log it belongs to.
    pub log_id: LogId,
    /// Incarnation of the log, one more after each accepted restore.
    pub epoch: u32,
    /// Schema of the messages, [`SCHEMA`](crate::SCHEMA) for those of this version.
    pub schema: u16,
    /// Place in the aggregate, from 1: the version of the ticket that the entry redeemed.
    pub sequence: u64,
    /// The writer's clock when it sealed, in microseconds since 1970-01-01T00:00:00Z. Informational
    /// only, clocks go wrong.
    pub created_us: i64,
    /// Hash of the entry before it in the aggregate, or the genesis hash.
    pub previous: Hash,
    /// Hash of the entry's metadata.
    pub metadata_hash: Hash,
    /// The data key it is sealed with.
    pub key_id: KeyId,
    /// The aggregate it belongs to.
    pub aggregate: Aggregate,
    /// The transaction it shares with other entries, if there are others.
    pub group: Option<Group>,
}

/// What connects the entries of a transaction that wrote more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The transaction, the same in all of its entries.
    pub txn_id: TxnId,
    /// Number of its entries, 2 or more.
    pub parts: u16,
}

/// What the writer knows about an entry before it is sealed; see [`Header`] for the fields.
///
/// Suite and key id are missing: they follow from the key.
#[derive(Clone, Copy, Debug)]
pub struct NewHeader<'a> {
    /// The log.
    pub log_id: LogId,
    /// Incarnation of the log.
    pub epoch: u32,
    /// Schema of the messages, usually [`SCHEMA`](crate::SCHEMA).
    pub schema: u16,
    /// Place in the aggregate, from 1.
    pub sequence: u64,
    /// The writer's clock in microseconds since 1970-01-01T00:00:00Z.
    pub created_us: i64,
    /// Hash of the entry before, or the genesis hash.
    pub previous: Hash,
    /// Hash of the metadata.
    pub metadata_hash: Hash,
    /// The aggregate.
    pub aggregate: &'a Aggregate,
    /// The transaction, if it writes more than one entry.
    pub group: Option<Group>,
}

/// What [`Envelope::parse`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeLimits {
    /// The longest envelope in bytes. Values above [`ENVELOPE_LEN_HARD_MAX`] count as that.
    pub envelope_len_max: usize,
}

/// A sealed entry whose header is read but not yet proven: only [`open`](Self::open) proves it.
///
/// Borrows the stored bytes, which are what is authenticated and hashed, never a new encoding.
#[derive(Clone)]
pub struct Envelope<'a> {
    header: Header,
    header_len: usize,
    bytes: &'a [u8],
}

/// An entry that can't be sealed. Nothing was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// No nonce could be drawn.
    #[error("no nonce for the entry")]
    Rng(#[from] RngError),
    /// The aggregate can't stand in a header.
    #[error("the entry names no valid aggregate")]
    Aggregate(#[from] AggregateError),
    /// Sequences are 1 to [`SEQUENCE_MAX`].
    #[error("an entry can't have the sequence {sequence}")]
    Sequence {
        /// The number given.
        sequence: u64,
    },
    /// A transaction group of fewer than two entries.
    #[error("a transaction group of {parts} entries, there must be at least 2")]
    GroupParts {
        /// The number given.
        parts: u16,
    },
    /// The envelope would be longer than [`ENVELOPE_LEN_MAX`].
    #[error("the sealed entry would take {len} bytes, {max} are allowed")]
    TooLong {
        /// Bytes it would take.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The cipher refused, which it does for no length that is allowed here.
    #[error("the cipher refused the entry")]
    Cipher,
}

/// Bytes that are no envelope this reader accepts. Found without any key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than the limit. Nothing of it was read.
    #[error("the envelope takes {len} bytes, {max} are allowed")]
    TooLong {
        /// Bytes it takes.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The header is not as it must be.
    #[error("malformed envelope: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Written by another version of the format.
    #[error("envelope version {0} is not known")]
    UnsupportedVersion(u8),
    /// Sealed in a way that this reader does not accept.
    #[error("envelope suite {0:#04x} is not accepted")]
    SuiteRejected(u8),
}

/// An envelope that does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The entry is not what was sealed with this key.
    ///
    /// One class on purpose for a wrong key, a changed byte and a broken frame: telling them apart
    /// would help only somebody who tries.
    #[error("the integrity check fails")]
    Integrity {
        /// The aggregate that the unproven header names.
        aggregate: Aggregate,
        /// The sequence that the unproven header names.
        sequence: u64,
    },
    /// The entry is genuine, but compressed in a way that this version does not know.
    #[error("the content is stored with codec {codec}, which is not known")]
    UnsupportedCodec {
        /// The codec byte of the inner frame.
        codec: u8,
    },
}

const MAGIC: [u8; 3] = *b"OPL";
const VERSION: u8 = 1;
const FLAG_GROUP: u8 = 1;
const KEY_LABEL: &[u8] = b"oplog/v1/entry/key";
const COMMIT_LABEL: &[u8] = b"oplog/v1/entry/commit";

// Offsets of the header, see `FORMAT.md`.
const AT_NONCE: usize = 126;
const AT_COMMIT: usize = 150;
const AT_AGGREGATE: usize = 184;
const NONCE_LEN: usize = 24;
const COMMIT_LEN: usize = 32;
const GROUP_LEN: usize = 18;
const TAG_LEN: usize = 16;

const FRAME_VERSION: u8 = 1;
const FRAME_LEN: usize = 10;
const CODEC_NONE: u8 = 0;

/// Seals a queue: encrypts it and authenticates it together with the header.
///
/// The nonce is drawn from the operating system for each call, so sealing the same queue twice
/// gives different bytes. Source: `FORMAT.md`, sections "Envelope" and "Derivation".
///
/// # Errors
///
/// [`SealError::Rng`], [`SealError::Aggregate`], [`SealError::Sequence`],
/// [`SealError::GroupParts`] or [`SealError::TooLong`].
///
/// # Examples
///
/// ```
/// use oplog_core::{
///     Aggregate, DataKey, Envelope, EnvelopeLimits, Head, LogId, Metadata, NewHeader, SCHEMA, seal,
/// };
///
/// let (log_id, aggregate, key) = (LogId::random()?, Aggregate::new("files"), DataKey::generate()?);
/// let head = Head::genesis(&log_id, aggregate.as_str(), 1);
/// let header = NewHeader {
///     log_id,
///     epoch: head.epoch,
///     schema: SCHEMA,
///     sequence: head.next_sequence,
///     created_us: 1_700_000_000_000_000,
///     previous: head.hash,
///     metadata_hash: Metadata::new().hash(),
///     aggregate: &aggregate,
///     group: None,
/// };
/// let bytes = seal(&header, b"queue", &key)?;
/// let envelope = Envelope::parse(&bytes, &EnvelopeLimits::default())?;
/// assert_eq!(*envelope.open(&key)?, b"queue");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn seal(header: &NewHeader<'_>, queue: &[u8], key: &DataKey) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_LEN];
    rng::fill(&mut nonce)?;
    seal_with_nonce(header, queue, key, &nonce)
}

/// [`seal`] with a given nonce. A nonce must never serve twice, so this is for known answers only.
fn seal_with_nonce(
    header: &NewHeader<'_>,
    queue: &[u8],
    key: &DataKey,
    nonce: &[u8; NONCE_LEN],
) -> Result<Vec<u8>, SealError> {
    let Ok(len) = u32::try_from(queue.len()) else {
        return Err(SealError::TooLong {
            len: queue.len(),
            max: ENVELOPE_LEN_MAX,
        });
    };
    let mut frame = [0; FRAME_LEN];
    frame[0] = FRAME_VERSION;
    frame[1] = CODEC_NONE;
    frame[2..6].copy_from_slice(&len.to_le_bytes());
    frame[6..10].copy_from_slice(&len.to_le_bytes());
    seal_inner(header, [&frame, queue], key, nonce)
}

/// Seals the two parts one behind the other, in a single allocation and in place.
fn seal_inner(
    header: &NewHeader<'_>,
    inner: [&[u8]; 2],
    key: &DataKey,
    nonce: &[u8; NONCE_LEN],
) -> Result<Vec<u8>, SealError> {
    header.aggregate.check_stored()?;
    let sequence = header.sequence;
    if !(1..=SEQUENCE_MAX).contains(&sequence) {
        return Err(SealError::Sequence { sequence });
    }
    if let Some(Group {
        parts: parts @ 0..2,
        ..
    }) = header.group
    {
        return Err(SealError::GroupParts { parts });
    }
    let name = header.aggregate.as_str().as_bytes();
    let group_len = header.group.map_or(0, |_| GROUP_LEN);
    let header_len = AT_AGGREGATE + name.len() + group_len;
    let len = header_len + inner[0].len() + inner[1].len() + TAG_LEN;
    if len > ENVELOPE_LEN_MAX {
        return Err(SealError::TooLong {
            len,
            max: ENVELOPE_LEN_MAX,
        });
    }
    let suite = Suite::XChaCha20Poly1305;
    let derived = Derived::new(key, suite as u8, key.id(), nonce);

    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    bytes.push(suite as u8);
    bytes.push(if header.group.is_some() {
        FLAG_GROUP
    } else {
        0
    });
    bytes.extend_from_slice(&(header_len as u16).to_le_bytes());
    bytes.extend_from_slice(header.log_id.as_bytes());
    bytes.extend_from_slice(&header.epoch.to_le_bytes());
    bytes.extend_from_slice(&header.schema.to_le_bytes());
    bytes.extend_from_slice(&header.sequence.to_le_bytes());
    bytes.extend_from_slice(&header.created_us.to_le_bytes());
    bytes.extend_from_slice(header.previous.as_bytes());
    bytes.extend_from_slice(header.metadata_hash.as_bytes());
    bytes.extend_from_slice(key.id().as_bytes());
    bytes.extend_from_slice(nonce);
    bytes.extend_from_slice(&derived.commit);
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(name);
    if let Some(group) = header.group {
        bytes.extend_from_slice(group.txn_id.as_bytes());
        bytes.extend_from_slice(&group.parts.to_le_bytes());
    }
    debug_assert_eq!(bytes.len(), header_len);
    bytes.extend_from_slice(inner[0]);
    bytes.extend_from_slice(inner[1]);

    let (aad, body) = bytes.split_at_mut(header_len);
    match derived
        .cipher()
        .encrypt_inout_detached(&(*nonce).into(), aad, body.into())
    {
        Ok(tag) => bytes.extend_from_slice(&tag),
        Err(_) => {
            bytes.zeroize();
            return Err(SealError::Cipher);
        }
    }
    Ok(bytes)
}

impl Default for EnvelopeLimits {
    fn default() -> Self {
        Self {
            envelope_len_max: ENVELOPE_LEN_MAX,
        }
    }
}

impl Suite {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::XChaCha20Poly1305),
            _ => None,
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads the header of stored bytes. Needs no key and proves nothing.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError::TooLong`], [`EnvelopeError::Malformed`],
    /// [`EnvelopeError::UnsupportedVersion`] or [`EnvelopeError::SuiteRejected`].
    pub fn parse(bytes: &'a [u8], limits: &EnvelopeLimits) -> Result<Self, EnvelopeError> {
        let max = limits.envelope_len_max.min(ENVELOPE_LEN_HARD_MAX);
        if bytes.len() > max {
            return Err(EnvelopeError::TooLong {
                len: bytes.len(),
                max,
            });
        }
        let mut reader = Reader { bytes, offset: 0 };
        if reader.array()? != MAGIC {
            return Err(malformed("magic"));
        }
        let [version] = reader.array()?;
        if version != VERSION {
            return Err(EnvelopeError::UnsupportedVersion(version));
        }
        let [suite] = reader.array()?;
        let suite = Suite::from_byte(suite).ok_or(EnvelopeError::SuiteRejected(suite))?;
        let [flags] = reader.array()?;
        if flags & !FLAG_GROUP != 0 {
            return Err(malformed("flags"));
        }
        let header_len = usize::from(u16::from_le_bytes(reader.array()?));
        let log_id = LogId::from_bytes(reader.array()?);
        let epoch = u32::from_le_bytes(reader.array()?);
        let schema = u16::from_le_bytes(reader.array()?);
        let sequence = u64::from_le_bytes(reader.array()?);
        if !(1..=SEQUENCE_MAX).contains(&sequence) {
            return Err(malformed("sequence"));
        }
        let created_us = i64::from_le_bytes(reader.array()?);
        let previous = Hash::from_bytes(reader.array()?);
        let metadata_hash = Hash::from_bytes(reader.array()?);
        let key_id = KeyId::from_bytes(reader.array()?);
        let _nonce: [u8; NONCE_LEN] = reader.array()?;
        let _commit: [u8; COMMIT_LEN] = reader.array()?;
        let name_len = usize::from(u16::from_le_bytes(reader.array()?));
        if name_len > AGGREGATE_LEN_MAX {
            return Err(malformed("aggregate length"));
        }
        let name = std::str::from_utf8(reader.take(name_len)?)
            .map_err(|_| malformed("aggregate is not UTF-8"))?;
        let aggregate = Aggregate::new(name);
        aggregate
            .check_stored()
            .map_err(|_| malformed("aggregate"))?;
        let group = match flags & FLAG_GROUP {
            0 => None,
            _ => Some(Group {
                txn_id: TxnId::from_bytes(reader.array()?),
                parts: u16::from_le_bytes(reader.array()?),
            }),
        };
        if let Some(Group { parts: 0..2, .. }) = group {
            return Err(malformed("parts of the transaction"));
        }
        if reader.offset != header_len {
            return Err(malformed("header length"));
        }
        if bytes.len() - header_len < TAG_LEN {
            return Err(malformed("cut"));
        }
        let header = Header {
            suite,
            log_id,
            epoch,
            schema,
            sequence,
            created_us,
            previous,
            metadata_hash,
            key_id,
            aggregate,
            group,
        };
        Ok(Self {
            header,
            header_len,
            bytes,
        })
    }

    /// The clear part. Unproven until the envelope was opened or its hash found in a chain.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The clear part by value.
    #[must_use]
    pub fn into_header(self) -> Header {
        self.header
    }

    /// The stored bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of bytes in front of the encrypted body.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The hash that the next entry of the aggregate names. Needs no key.
    #[must_use]
    pub fn entry_hash(&self) -> Hash {
        hash::entry_hash(self.bytes)
    }

    /// Proves the header and decrypts the queue.
    ///
    /// The key is the one that [`Header::key_id`] names; another one does not open it. The queue
    /// is wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`OpenError::Integrity`] if a byte was changed or the key is another one,
    /// [`OpenError::UnsupportedCodec`] if a newer version compressed the queue.
    pub fn open(&self, key: &DataKey) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut inner = self.open_inner(key)?;
        let payload_len = self.check_frame(&inner)?;
        inner.copy_within(FRAME_LEN..FRAME_LEN + payload_len, 0);
        inner.truncate(payload_len);
        Ok(inner)
    }

    /// Decrypts what was sealed, frame and padding included.
    fn open_inner(&self, key: &DataKey) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (aad, body) = self.bytes.split_at(self.header_len);
        let (Some(nonce), Some(commit), Some((sealed, tag))) = (
            self.bytes[AT_NONCE..].first_chunk::<NONCE_LEN>(),
            self.bytes[AT_COMMIT..].first_chunk::<COMMIT_LEN>(),
            body.split_last_chunk::<TAG_LEN>(),
        ) else {
            return Err(self.integrity());
        };
        let derived = Derived::new(key, self.header.suite as u8, &self.header.key_id, nonce);
        let is_committed = bool::from(derived.commit.ct_eq(commit));
        if !is_committed || *key.id() != self.header.key_id {
            return Err(self.integrity());
        }
        let mut inner = Zeroizing::new(sealed.to_vec());
        derived
            .cipher()
            .decrypt_inout_detached(
                &(*nonce).into(),
                aad,
                inner.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| self.integrity())?;
        Ok(inner)
    }

    /// Length of the payload behind a frame that is as it must be.
    fn check_frame(&self, inner: &[u8]) -> Result<usize, OpenError> {
        let Some((frame, rest)) = inner.split_first_chunk::<FRAME_LEN>() else {
            return Err(self.integrity());
        };
        let [version, codec, r0, r1, r2, r3, p0, p1, p2, p3] = *frame;
        if version != FRAME_VERSION {
            return Err(self.integrity());
        }
        if codec != CODEC_NONE {
            return Err(OpenError::UnsupportedCodec { codec });
        }
        let raw_len = u32::from_le_bytes([r0, r1, r2, r3]) as usize;
        let payload_len = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
        let is_padded_with_zeros = rest
            .get(payload_len..)
            .is_some_and(|padding| padding.iter().all(|byte| *byte == 0));
        match raw_len == payload_len && is_padded_with_zeros {
            true => Ok(payload_len),
            false => Err(self.integrity()),
        }
    }

    fn integrity(&self) -> OpenError {
        OpenError::Integrity {
            aggregate: self.header.aggregate.clone(),
            sequence: self.header.sequence,
        }
    }
}

impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("header", &self.header)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// What HKDF-SHA256 (RFC 5869) makes of data key and nonce for one entry.
///
/// The salt is the nonce, so each entry has its own key. XChaCha20-Poly1305 alone would let
/// somebody who knows two keys build one ciphertext that opens under both; the commitment is
/// derived beside the key, compared before decrypting, and makes that impossible.
struct Derived {
    key: Zeroizing<[u8; 32]>,
    commit: [u8; COMMIT_LEN],
}

impl Derived {
    fn new(key: &DataKey, suite: u8, key_id: &KeyId, nonce: &[u8; NONCE_LEN]) -> Self {
        let (_prk, hkdf) = extract(key, nonce);
        let mut derived = Self {
            key: Zeroizing::new([0; 32]),
            commit: [0; COMMIT_LEN],
        };
        let context = [suite];
        let expand = |label: &[u8], out: &mut [u8]| {
            hkdf.expand_multi_info(&[label, &context, key_id.as_bytes()], out)
                .expect("HKDF-SHA256 gives up to 8,160 bytes, 32 are asked for");
        };
        expand(KEY_LABEL, derived.key.as_mut_slice());
        expand(COMMIT_LABEL, &mut derived.commit);
        derived
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }
}

/// The key of one entry, from which its cipher key and its commitment come: as bytes, for whoever
/// is to check that entry alone, and ready for use.
fn extract(key: &DataKey, nonce: &[u8; NONCE_LEN]) -> (Zeroizing<[u8; 32]>, Hkdf<Sha256>) {
    let (mut output, hkdf) = Hkdf::<Sha256>::extract(Some(nonce), key.expose_secret());
    let mut prk = Zeroizing::new([0; 32]);
    prk.copy_from_slice(&output);
    output.as_mut_slice().zeroize();
    (prk, hkdf)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EnvelopeError> {
        let taken = self.bytes[self.offset..]
            .get(..len)
            .ok_or(malformed("cut"))?;
        self.offset += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

fn malformed(what: &'static str) -> EnvelopeError {
    EnvelopeError::Malformed { what }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{Metadata, SCHEMA, genesis};

    const ENTRY_1: &str = "4f504c010100c000101112131415161718191a1b1c1d1e1f0100000002000100000000000000\
        00401e18240a06007f4e53fde610aa769bae763e4520c54444a407a9b2f7561d2cebc60086f85a26ebb1ddd9ab22\
        e95f69c08e7f0c7d256eb17915624a33287853c1ba92a210ee17a0a1a2a3a4a5a6a7a8a9aaabacadaeaf40414243\
        4445464748494a4b4c4d4e4f5051525354555657a1c92e301955ad750dd4a3a33339d33b413a746476e2b2ea7b1f\
        ee551effcf10080069616d5f75736572ed9cc3d4363e097ad267d62012993a37c81a63abc62cc57bedf90f";
    const CREATE_CAR: &str = "170000000a03636172120a080222044a656570281918012200\
        2a00";

    const CAR_1: &str = "4f504c010100bb00101112131415161718191a1b1c1d1e1f01000000020001000000000000000040\
        1e18240a06007911a5216cce5bfb70d48a5e599c9d7ba25bc4d48ac8d8bc8b8eda10a6d14773ebb1\
        ddd9ab22e95f69c08e7f0c7d256eb17915624a33287853c1ba92a210ee17a0a1a2a3a4a5a6a7a8a9\
        aaabacadaeaf404142434445464748494a4b4c4d4e4f5051525354555657a1c92e301955ad750dd4\
        a3a33339d33b413a746476e2b2ea7b1fee551effcf10030063617284f9b4b8591e7d0abe08a6f110\
        deac324ad313b93cd1cfd98374154a058d89206a43b65db0f11d2c334f88d9601f421d20dab9d29b";
    const CAR_2: &str = "4f504c010101cd00101112131415161718191a1b1c1d1e1f03000000020002000000000000000040\
        1e18240a0600d8c312af70f92bf96f689caecccca2965801ddc7ddcac6126aa40a638f8145281d43\
        6d35bf07b700d4597921850e21e139ed4834e7af6f6892d7d88ca95ddb21a0a1a2a3a4a5a6a7a8a9\
        aaabacadaeaf404142434445464748494a4b4c4d4e4f5051525354555657a1c92e301955ad750dd4\
        a3a33339d33b413a746476e2b2ea7b1fee551effcf100300636172c0c1c2c3c4c5c6c7c8c9cacbcc\
        cdcecf020084f9b4b8591e7d0abe08a6f110deac324ad313b93cd1cfd98374154a058d89206a43b6\
        5db0bbd10371380ecba04f2fb57fb5a8d3c5";
    const CAR_2_HASH: &str = "e95c3eef04d265935776fd134779f8050e4f45464230208a52ab835f1290123b";

    fn sequence_of_bytes<const N: usize>(first: u8) -> [u8; N] {
        std::array::from_fn(|index| first + index as u8)
    }

    fn key() -> DataKey {
        DataKey::from_bytes(
            KeyId::from_bytes(sequence_of_bytes(0xa0)),
            sequence_of_bytes(0),
        )
    }

    fn nonce() -> [u8; NONCE_LEN] {
        sequence_of_bytes(0x40)
    }

    fn new_header(aggregate: &Aggregate) -> NewHeader<'_> {
        let log_id = LogId::from_bytes(sequence_of_bytes(0x10));
        NewHeader {
            log_id,
            epoch: 1,
            schema: SCHEMA,
            sequence: 1,
            created_us: 1_700_000_000_000_000,
            previous: genesis(&log_id, aggregate.as_str()),
            metadata_hash: Metadata::new().hash(),
            aggregate,
            group: None,
        }
    }

    fn group() -> Option<Group> {
        Some(Group {
            txn_id: TxnId::from_bytes(sequence_of_bytes(0xc0)),
            parts: 2,
        })
    }

    fn sealed(inner: &[u8], group: Option<Group>) -> Vec<u8> {
        let aggregate = Aggregate::new("iam_user");
        let header = NewHeader {
            group,
            ..new_header(&aggregate)
        };
        seal_inner(&header, [inner, &[]], &key(), &nonce()).unwrap()
    }

    fn sample(group: Option<Group>) -> Vec<u8> {
        let aggregate = Aggregate::new("iam_user");
        let header = NewHeader {
            group,
            ..new_header(&aggregate)
        };
        seal(&header, b"queue", &key()).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        let mut text = String::new();
        hash::write_hex(bytes, &mut text).unwrap();
        text
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |index| u8::from_str_radix(&text[index..index + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    fn parse(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
        Envelope::parse(bytes, &EnvelopeLimits::default())
    }

    fn integrity() -> OpenError {
        OpenError::Integrity {
            aggregate: Aggregate::new("iam_user"),
            sequence: 1,
        }
    }

    fn opens(bytes: &[u8]) -> bool {
        parse(bytes).is_ok_and(|envelope| envelope.open(&key()).is_ok())
    }

    #[test]
    fn known_answer() {
        let (prk, _) = extract(&key(), &nonce());
        assert_eq!(
            hex(prk.as_slice()),
            "d3dd32bf7a658d8f6205b17a744de35ba517ecc9cee788aa99fd3d24dcbd482b"
        );
        let bytes = sealed(b"hello oplog", None);
        assert_eq!(hex(&bytes), ENTRY_1);
        let envelope = parse(&bytes).unwrap();
        assert_eq!(
            envelope.entry_hash().to_string(),
            "3391645fe3004934f0f34a3831a42dc9353a475d5e402cb18266d27ee5866e19"
        );
        assert_eq!(*envelope.open_inner(&key()).unwrap(), b"hello oplog");
        assert_eq!(envelope.open(&key()), Err(integrity()));
    }

    /// Computed by an independent implementation of `FORMAT.md`.
    #[test]
    fn known_answers_of_two_chained_entries() {
        let aggregate = Aggregate::new("car");
        let queue = unhex(CREATE_CAR);
        let first = seal_with_nonce(&new_header(&aggregate), &queue, &key(), &nonce()).unwrap();
        assert_eq!(hex(&first), CAR_1);
        let mut metadata = Metadata::new();
        metadata.push("actor", "root").unwrap();
        metadata.push("actor", "").unwrap();
        metadata.push_key("reviewed").unwrap();
        let header = NewHeader {
            epoch: 3,
            sequence: 2,
            previous: hash::entry_hash(&first),
            metadata_hash: metadata.hash(),
            group: group(),
            ..new_header(&aggregate)
        };
        let second = seal_with_nonce(&header, &queue, &key(), &nonce()).unwrap();
        assert_eq!(hex(&second), CAR_2);
        assert_eq!(hash::entry_hash(&second).to_string(), CAR_2_HASH);
        let envelope = parse(&second).unwrap();
        let header = envelope.header();
        assert_eq!(
            (header.epoch, header.sequence, header.group),
            (3, 2, group())
        );
        assert_eq!(*envelope.open(&key()).unwrap(), queue);
    }

    #[test]
    fn what_was_sealed_opens() {
        for group in [None, group()] {
            let bytes = sample(group);
            assert_eq!(bytes.capacity(), bytes.len(), "one allocation");
            let envelope = parse(&bytes).unwrap();
            assert_eq!(envelope.header().group, group);
            assert_eq!(envelope.header().key_id, *key().id());
            assert_eq!(*envelope.open(&key()).unwrap(), b"queue");
            assert_ne!(bytes, sample(group), "a new nonce each time");
        }
    }

    #[test]
    fn an_empty_queue_round_trips() {
        let aggregate = Aggregate::new("a");
        let bytes = seal(&new_header(&aggregate), b"", &key()).unwrap();
        assert_eq!(*parse(&bytes).unwrap().open(&key()).unwrap(), b"");
    }

    #[test]
    fn no_single_bit_can_change() {
        for bytes in [sample(None), sample(group())] {
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&changed), "bit {bit}");
            }
        }
    }

    #[test]
    fn nothing_can_be_cut_or_appended() {
        for bytes in [sample(None), sample(group())] {
            for len in 0..bytes.len() {
                assert!(!opens(&bytes[..len]), "{len} bytes");
            }
            assert!(!opens(&[bytes.as_slice(), &[0]].concat()));
        }
    }

    /// Every field is part of what is authenticated, also when the new value is well-formed.
    #[test]
    fn no_field_can_change() {
        let fields = [
            ("log_id", 8),
            ("epoch", 24),
            ("schema", 28),
            ("sequence", 30),
            ("created_us", 38),
            ("previous", 46),
            ("metadata_hash", 78),
            ("key_id", 110),
            ("nonce", AT_NONCE),
            ("commit", AT_COMMIT),
            ("aggregate", AT_AGGREGATE),
            ("txn_id", 192),
            ("parts", 208),
            ("body", 210),
        ];
        let bytes = sealed(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], group());
        assert!(opens(&bytes));
        for (field, offset) in fields {
            let mut changed = bytes.clone();
            changed[offset] ^= 4;
            let envelope = parse(&changed).unwrap_or_else(|error| panic!("{field}: {error}"));
            let opened = envelope.open(&key());
            assert!(
                matches!(opened, Err(OpenError::Integrity { .. })),
                "{field}: {opened:?}"
            );
        }
    }

    #[test]
    fn malformed_headers_are_told_apart() {
        fn check(offset: usize, bytes: &[u8], expected: EnvelopeError) {
            let mut changed = sample(group());
            changed[offset..offset + bytes.len()].copy_from_slice(bytes);
            assert_eq!(parse(&changed).unwrap_err(), expected);
        }
        check(0, b"opl", malformed("magic"));
        check(3, &[0], EnvelopeError::UnsupportedVersion(0));
        check(3, &[2], EnvelopeError::UnsupportedVersion(2));
        check(4, &[0], EnvelopeError::SuiteRejected(0));
        check(4, &[0xf0], EnvelopeError::SuiteRejected(0xf0));
        check(5, &[0], malformed("header length"));
        check(5, &[3], malformed("flags"));
        check(5, &[0x80], malformed("flags"));
        check(6, &[0, 0], malformed("header length"));
        check(6, &[0xff, 0xff], malformed("header length"));
        check(30, &[0; 8], malformed("sequence"));
        check(30, &[0xff; 8], malformed("sequence"));
        check(30, &(1u64 << 63).to_le_bytes(), malformed("sequence"));
        check(182, &[0, 0], malformed("aggregate"));
        check(182, &[0, 1], malformed("aggregate length"));
        check(182, &[255, 0], malformed("cut"));
        check(184, &[0], malformed("aggregate"));
        check(184, &[0xff], malformed("aggregate is not UTF-8"));
        check(208, &[1, 0], malformed("parts of the transaction"));
        check(208, &[0, 0], malformed("parts of the transaction"));
        let bytes = sample(None);
        assert_eq!(
            parse(&bytes[..192 + TAG_LEN - 1]).unwrap_err(),
            malformed("cut")
        );
        assert_eq!(parse(b"").unwrap_err(), malformed("cut"));
    }

    #[test]
    fn the_length_is_limited_before_anything_is_read() {
        let bytes = sample(None);
        let max = bytes.len() - 1;
        let limits = EnvelopeLimits {
            envelope_len_max: max,
        };
        let error = EnvelopeError::TooLong {
            len: bytes.len(),
            max,
        };
        assert_eq!(Envelope::parse(&bytes, &limits).unwrap_err(), error);
        let limits = EnvelopeLimits {
            envelope_len_max: usize::MAX,
        };
        let bytes = vec![0; ENVELOPE_LEN_HARD_MAX + 1];
        let error = EnvelopeError::TooLong {
            len: bytes.len(),
            max: ENVELOPE_LEN_HARD_MAX,
        };
        assert_eq!(Envelope::parse(&bytes, &limits).unwrap_err(), error);
    }

    #[test]
    fn only_the_key_itself_opens() {
        let bytes = sample(None);
        let envelope = parse(&bytes).unwrap();
        let same_id = DataKey::from_bytes(*key().id(), [1; 32]);
        let same_secret = DataKey::from_bytes(KeyId::from_bytes([1; 16]), sequence_of_bytes(0));
        for other in [same_id, same_secret, DataKey::generate().unwrap()] {
            assert_eq!(envelope.open(&other), Err(integrity()));
        }
    }

    /// The commitment is compared, not only the tag: a body that is genuine under the derived key
    /// must not open when the commitment is not that key's.
    #[test]
    fn the_commitment_is_checked() {
        let mut bytes = sealed(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], None);
        bytes[AT_COMMIT] ^= 1;
        let (aad, body) = bytes.split_at_mut(192);
        body[..FRAME_LEN].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let derived = Derived::new(&key(), 1, key().id(), &nonce());
        let (inner, tag) = body.split_at_mut(FRAME_LEN);
        let sealed = derived
            .cipher()
            .encrypt_inout_detached(&nonce().into(), aad, inner.into());
        tag.copy_from_slice(&sealed.unwrap());
        assert_eq!(parse(&bytes).unwrap().open(&key()), Err(integrity()));
    }

    #[test]
    fn the_frame_is_checked_after_the_tag() {
        fn check(inner: &[u8], expected: Result<&[u8], OpenError>) {
            let bytes = sealed(inner, None);
            let opened = parse(&bytes).unwrap().open(&key());
            assert_eq!(
                opened.as_ref().map(|queue| queue.as_slice()),
                expected.as_ref().copied()
            );
        }
        check(&[1, 0, 2, 0, 0, 0, 2, 0, 0, 0, 7, 8], Ok(&[7, 8]));
        check(&[1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0], Ok(&[7]));
        check(&[1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 1], Err(integrity()));
        check(&[1, 0, 3, 0, 0, 0, 3, 0, 0, 0, 7, 8], Err(integrity()));
        check(
            &[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 7, 8],
            Err(integrity()),
        );
        check(&[1, 0, 3, 0, 0, 0, 2, 0, 0, 0, 7, 8], Err(integrity()));
        check(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0], Err(integrity()));
        check(
            &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            Err(OpenError::UnsupportedCodec { codec: 1 }),
        );
        check(&[1, 0, 0, 0, 0, 0, 0, 0, 0], Err(integrity()));
        check(&[], Err(integrity()));
    }

    #[test]
    fn what_cannot_be_read_is_not_sealed() {
        fn check(change: impl Fn(&mut NewHeader<'_>), name: &str, expected: SealError) {
            let aggregate = Aggregate::new(name);
            let mut header = new_header(&aggregate);
            change(&mut header);
            assert_eq!(seal(&header, b"", &key()), Err(expected));
        }
        check(|_| {}, "", SealError::Aggregate(AggregateError::Empty));
        for sequence in [0, SEQUENCE_MAX + 1, u64::MAX] {
            check(
                |header| header.sequence = sequence,
                "a",
                SealError::Sequence { sequence },
            );
        }
        let lonely = |parts| {
            move |header: &mut NewHeader<'_>| {
                header.group = group().map(|group| Group { parts, ..group });
            }
        };
        check(lonely(0), "a", SealError::GroupParts { parts: 0 });
        check(lonely(1), "a", SealError::GroupParts { parts: 1 });
    }

    #[test]
    fn the_longest_envelope_is_written_and_read() {
        let name = "n".repeat(AGGREGATE_LEN_MAX);
        let aggregate = Aggregate::new(name);
        let header = NewHeader {
            group: group(),
            ..new_header(&aggregate)
        };
        let overhead = AT_AGGREGATE + AGGREGATE_LEN_MAX + GROUP_LEN + FRAME_LEN + TAG_LEN;
        let mut queue = vec![7; ENVELOPE_LEN_MAX - overhead];
        let bytes = seal(&header, &queue, &key()).unwrap();
        assert_eq!(bytes.len(), ENVELOPE_LEN_MAX);
        assert!(parse(&bytes).is_ok());
        queue.push(7);
        let error = SealError::TooLong {
            len: ENVELOPE_LEN_MAX + 1,
            max: ENVELOPE_LEN_MAX,
        };
        assert_eq!(seal(&header, &queue, &key()), Err(error));
    }

    #[test]
    fn names_of_the_log_itself_can_be_sealed() {
        let aggregate = Aggregate::new("_oplog/control");
        let bytes = seal(&new_header(&aggregate), b"", &key()).unwrap();
        assert_eq!(parse(&bytes).unwrap().header().aggregate, aggregate);
    }

    fn any_header() -> impl Strategy<Value = (Aggregate, u32, u64, i64, Option<Group>)> {
        let group = prop::option::of((any::<[u8; 16]>(), 2u16..));
        let group = group.prop_map(|group| {
            group.map(|(txn_id, parts)| Group {
                txn_id: TxnId::from_bytes(txn_id),
                parts,
            })
        });
        (
            "[^\0]{1,60}".prop_map(Aggregate::new),
            any::<u32>(),
            prop_oneof![Just(SEQUENCE_MAX), 1..=SEQUENCE_MAX],
            any::<i64>(),
            group,
        )
    }

    proptest! {
        #[test]
        fn open_undoes_seal(
            (aggregate, epoch, sequence, created_us, group) in any_header(),
            queue in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let new = NewHeader { epoch, sequence, created_us, group, ..new_header(&aggregate) };
            let bytes = seal(&new, &queue, &key()).unwrap();
            let envelope = parse(&bytes).unwrap();
            let header = envelope.header();
            prop_assert_eq!(&header.aggregate, &aggregate);
            prop_assert_eq!(
                (header.epoch, header.sequence, header.created_us, header.group),
                (epoch, sequence, created_us, group)
            );
            prop_assert_eq!((header.log_id, header.schema), (new.log_id, new.schema));
            prop_assert_eq!((header.previous, header.metadata_hash), (new.previous, new.metadata_hash));
            let opened = envelope.open(&key()).unwrap();
            prop_assert_eq!(opened.as_slice(), queue);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            start in 0..=184usize, tail in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = sample(group())[..start].to_vec();
            bytes.extend(tail);
            prop_assert!(!opens(&bytes));
        }

        #[test]
        fn changed_bytes_never_open(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let bytes = sample(group());
            let mut changed = bytes.clone();
            for (index, byte) in changes {
                *index.get_mut(&mut changed) = byte;
            }
            prop_assert_eq!(opens(&changed), changed == bytes);
        }
    }
}
