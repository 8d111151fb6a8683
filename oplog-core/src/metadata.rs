use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sha2::{Digest, Sha256};

use crate::Hash;

/// The most pairs of key and value that one entry can carry.
pub const METADATA_PAIRS_MAX: usize = 64;
/// The longest key of metadata, in bytes of UTF-8.
pub const METADATA_KEY_LEN_MAX: usize = 255;
/// The longest value of metadata, in bytes of UTF-8.
pub const METADATA_VALUE_LEN_MAX: usize = 64 * 1024;
/// The longest metadata in its stored form, in bytes.
pub const METADATA_LEN_MAX: usize =
    4 + METADATA_PAIRS_MAX * (4 + METADATA_KEY_LEN_MAX + 4 + 1 + 4 + METADATA_VALUE_LEN_MAX);

/// Keys that begin with it belong to the log itself.
const RESERVED_PREFIX: &str = "_oplog.";
const METADATA_DOMAIN: &[u8] = b"oplog/v1/metadata\0";
const VALUE_ABSENT: u8 = 0;
const VALUE_PRESENT: u8 = 1;

/// What stands beside an entry in the clear, for search: keys with any number of values each.
///
/// The values of one key keep the order in which they were pushed; keys are ordered by their
/// bytes. A key can also stand there without a value, which is something else than an empty value.
///
/// Metadata is authenticated, the entry's header holds its hash, but **not secret**: put no
/// personal data and no secrets into it. Source: `FORMAT.md`, section "Metadata".
///
/// # Examples
///
/// ```
/// use oplog_core::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.push("actor", "root")?;
/// metadata.push("actor", "cron")?;
/// metadata.push_key("reviewed")?;
/// assert_eq!(metadata.get("actor").collect::<Vec<_>>(), [Some("root"), Some("cron")]);
/// assert_eq!(metadata.get("reviewed").collect::<Vec<_>>(), [None]);
/// assert_eq!(Metadata::from_bytes(&metadata.to_bytes())?, metadata);
/// # Ok::<(), oplog_core::MetadataError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Invariant: holds nothing that [`check_key`] and [`check_value`] refuse, and no more than
    /// [`METADATA_PAIRS_MAX`] pairs. No values: the key stands alone.
    keys: BTreeMap<String, Vec<String>>,
}

/// Metadata that can't be written, or stored bytes that are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// More pairs than [`METADATA_PAIRS_MAX`].
    #[error("more than {max} pairs of metadata")]
    TooMany {
        /// Pairs that are allowed.
        max: usize,
    },
    /// The key is empty.
    #[error("a key of metadata is empty")]
    EmptyKey,
    /// The key is longer than [`METADATA_KEY_LEN_MAX`].
    #[error("a key of metadata takes {len} bytes, {max} are allowed")]
    KeyTooLong {
        /// Bytes of the key.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// A value is longer than [`METADATA_VALUE_LEN_MAX`].
    #[error(
        "a value of the metadata key `{}` takes {len} bytes, {max} are allowed",
        key.escape_debug()
    )]
    ValueTooLong {
        /// The key.
        key: String,
        /// Bytes of the value.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The key or the value holds U+0000, which databases cut or refuse.
    #[error("the metadata key {key:?} or its value holds U+0000")]
    Nul {
        /// The key.
        key: String,
    },
    /// The key begins with `_oplog.`, which is kept for the log itself.
    #[error(
        "the metadata key `{}` is reserved, as all that begin with `_oplog.`",
        key.escape_debug()
    )]
    Reserved {
        /// The key.
        key: String,
    },
    /// The stored bytes are not the one encoding of any metadata.
    #[error("malformed metadata: {what} at byte {offset}")]
    Malformed {
        /// What was found or missed.
        what: &'static str,
        /// Where, counted from the start of the bytes.
        offset: usize,
    },
}

impl Metadata {
    /// No metadata.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value after those that the key has already.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Reserved`], [`EmptyKey`](MetadataError::EmptyKey),
    /// [`KeyTooLong`](MetadataError::KeyTooLong), [`ValueTooLong`](MetadataError::ValueTooLong),
    /// [`Nul`](MetadataError::Nul) or [`TooMany`](MetadataError::TooMany). The metadata stays as
    /// it was.
    pub fn push(
        &mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), MetadataError> {
        let key = key.into();
        check_reserved(&key)?;
        self.add(key, Some(value.into()))
    }

    /// Adds a key without a value. Does nothing if the key is there already, with or without one.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_key(&mut self, key: impl Into<String>) -> Result<(), MetadataError> {
        let key = key.into();
        check_reserved(&key)?;
        self.add(key, None)
    }

    /// [`push`](Self::push) for the log's own keys, those that begin with `_oplog.`.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), without [`MetadataError::Reserved`].
    #[doc(hidden)]
    pub fn push_reserved(
        &mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), MetadataError> {
        self.add(key.into(), Some(value.into()))
    }

    /// The values of a key in order: nothing if the key is not there, one `None` if it stands
    /// without a value.
    pub fn get(&self, key: &str) -> impl Iterator<Item = Option<&str>> {
        self.keys
            .get(key)
            .into_iter()
            .flat_map(|values| pairs(values))
            .map(|(_, value)| value)
    }

    /// Every pair as key, ordinal within the key (from 0) and value, in the order of the bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32, Option<&str>)> {
        self.keys.iter().flat_map(|(key, values)| {
            pairs(values).map(move |(ordinal, value)| (key.as_str(), ordinal, value))
        })
    }

    /// Number of pairs, keys without a value counted as one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.values().map(|values| values.len().max(1)).sum()
    }

    /// Whether there is no pair at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The bytes that are stored and hashed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let len = self.iter().fold(4, |len, (key, _, value)| {
            len + 4 + key.len() + 4 + 1 + value.map_or(0, |value| 4 + value.len())
        });
        let mut bytes = Vec::with_capacity(len);
        // Every number below fits: the limits are checked when a pair is added.
        put_u32(&mut bytes, self.len());
        for (key, ordinal, value) in self.iter() {
            put_u32(&mut bytes, key.len());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(&ordinal.to_le_bytes());
            match value {
                None => bytes.push(VALUE_ABSENT),
                Some(value) => {
                    bytes.push(VALUE_PRESENT);
                    put_u32(&mut bytes, value.len());
                    bytes.extend_from_slice(value.as_bytes());
                }
            }
        }
        bytes
    }

    /// Reads stored bytes. Accepts only what [`to_bytes`](Self::to_bytes) gives, so that the same
    /// metadata always has the same hash.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Malformed`] for bytes that are cut, in another order, with gaps in the
    /// ordinals or followed by others, and the error of [`push`](Self::push) for a pair that could
    /// not have been added.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetadataError> {
        let mut reader = Reader { bytes, offset: 0 };
        let count = reader.u32("a cut number of pairs")?;
        if count as usize > METADATA_PAIRS_MAX {
            return Err(MetadataError::TooMany {
                max: METADATA_PAIRS_MAX,
            });
        }
        let mut metadata = Self::new();
        let mut last: Option<(String, u32, bool)> = None;
        for _ in 0..count {
            let start = reader.offset;
            let malformed = |what| MetadataError::Malformed {
                what,
                offset: start,
            };
            let key = reader.text("a cut key", "a key that is not UTF-8")?;
            let ordinal = reader.u32("a cut ordinal")?;
            let value = match reader.u8("a missing value")? {
                VALUE_ABSENT => None,
                VALUE_PRESENT => Some(reader.text("a cut value", "a value that is not UTF-8")?),
                _ => return Err(malformed("an unknown kind of value")),
            };
            let expected = match &last {
                Some((last, _, _)) if last.as_str() > key => {
                    return Err(malformed("a key out of order"));
                }
                Some((last, ordinal, alone)) if last == key => match *alone || value.is_none() {
                    true => return Err(malformed("a key both with and without value")),
                    false => ordinal + 1,
                },
                _ => 0,
            };
            if ordinal != expected {
                return Err(malformed("an ordinal out of order"));
            }
            last = Some((key.to_owned(), ordinal, value.is_none()));
            metadata.add(key.to_owned(), value.map(str::to_owned))?;
        }
        match reader.offset == bytes.len() {
            true => Ok(metadata),
            false => Err(MetadataError::Malformed {
                what: "bytes after the last pair",
                offset: reader.offset,
            }),
        }
    }

    /// The hash that the header of the entry carries.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Self::hash_bytes(&self.to_bytes())
    }

    /// The hash of metadata in its stored form, without decoding it.
    #[must_use]
    pub fn hash_bytes(bytes: &[u8]) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(METADATA_DOMAIN);
        hasher.update(bytes);
        Hash::from_bytes(hasher.finalize().into())
    }

    fn add(&mut self, key: String, value: Option<String>) -> Result<(), MetadataError> {
        check_key(&key)?;
        if let Some(value) = &value {
            check_value(&key, value)?;
        }
        let full = self.len() >= METADATA_PAIRS_MAX;
        let too_many = MetadataError::TooMany {
            max: METADATA_PAIRS_MAX,
        };
        match (self.keys.entry(key), value) {
            (Entry::Occupied(_), None) => {}
            // The value takes the place of the pair that said "no value": no pair more.
            (Entry::Occupied(mut values), Some(value)) if values.get().is_empty() => {
                values.get_mut().push(value);
            }
            _ if full => return Err(too_many),
            (entry, value) => entry.or_default().extend(value),
        }
        Ok(())
    }
}

/// The pairs of one key: its values, or one pair without value.
fn pairs(values: &[String]) -> impl Iterator<Item = (u32, Option<&str>)> {
    let alone = values.is_empty().then_some((0, None));
    alone
        .into_iter()
        .chain((0..).zip(values.iter().map(|value| Some(value.as_str()))))
}

fn check_reserved(key: &str) -> Result<(), MetadataError> {
    match key.starts_with(RESERVED_PREFIX) {
        true => Err(MetadataError::Reserved {
            key: key.to_owned(),
        }),
        false => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), MetadataError> {
    if key.is_empty() {
        return Err(MetadataError::EmptyKey);
    }
    if key.len() > METADATA_KEY_LEN_MAX {
        return Err(MetadataError::KeyTooLong {
            len: key.len(),
            max: METADATA_KEY_LEN_MAX,
        });
    }
    check_nul(key, key)
}

fn check_value(key: &str, value: &str) -> Result<(), MetadataError> {
    if value.len() > METADATA_VALUE_LEN_MAX {
        return Err(MetadataError::ValueTooLong {
            key: key.to_owned(),
            len: value.len(),
            max: METADATA_VALUE_LEN_MAX,
        });
    }
    check_nul(key, value)
}

fn check_nul(key: &str, text: &str) -> Result<(), MetadataError> {
    match text.contains('\0') {
        true => Err(MetadataError::Nul {
            key: key.to_owned(),
        }),
        false => Ok(()),
    }
}

fn put_u32(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&(number as u32).to_le_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], MetadataError> {
        let rest = &self.bytes[self.offset..];
        let Some(taken) = rest.get(..len) else {
            return Err(MetadataError::Malformed {
                what,
                offset: self.offset,
            });
        };
        self.offset += len;
        Ok(taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, MetadataError> {
        Ok(self.take(1, what)?[0])
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, MetadataError> {
        let mut number = [0; 4];
        number.copy_from_slice(self.take(4, what)?);
        Ok(u32::from_le_bytes(number))
    }

    fn text(
        &mut self,
        cut: &'static str,
        not_utf8: &'static str,
    ) -> Result<&'a str, MetadataError> {
        let len = self.u32(cut)?;
        let offset = self.offset;
        let bytes = self.take(len as usize, cut)?;
        std::str::from_utf8(bytes).map_err(|_| MetadataError::Malformed {
            what: not_utf8,
            offset,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.push("actor", "root").unwrap();
        metadata.push_key("reviewed").unwrap();
        metadata.push("actor", "").unwrap();
        metadata
    }

    fn pair(key: &[u8], ordinal: u32, value: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, key.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&ordinal.to_le_bytes());
        match value {
            None => bytes.push(0),
            Some(value) => {
                bytes.push(1);
                put_u32(&mut bytes, value.len());
                bytes.extend_from_slice(value);
            }
        }
        bytes
    }

    fn encoded(count: usize, pairs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, count);
        bytes.extend(pairs.concat());
        bytes
    }

    #[test]
    fn empty_known_answer() {
        assert_eq!(Metadata::new().to_bytes(), [0; 4]);
        assert_eq!(
            Metadata::new().hash().to_string(),
            "ebb1ddd9ab22e95f69c08e7f0c7d256eb17915624a33287853c1ba92a210ee17"
        );
    }

    #[test]
    fn bytes_are_sorted_pairs() {
        let expected = encoded(
            3,
            &[
                pair(b"actor", 0, Some(b"root")),
                pair(b"actor", 1, Some(b"")),
                pair(b"reviewed", 0, None),
            ],
        );
        assert_eq!(sample().to_bytes(), expected);
        assert_eq!(Metadata::from_bytes(&expected), Ok(sample()));
    }

    #[test]
    fn a_key_stands_alone_until_it_has_a_value() {
        let mut metadata = Metadata::new();
        metadata.push_key("k").unwrap();
        metadata.push_key("k").unwrap();
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("k", 0, None)]);
        metadata.push("k", "v").unwrap();
        metadata.push_key("k").unwrap();
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("k", 0, Some("v"))]);
        assert_eq!(metadata.get("other").count(), 0);
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        fn check(key: &str, value: &str, expected: MetadataError) {
            let mut metadata = sample();
            assert_eq!(metadata.push(key, value), Err(expected));
            assert_eq!(metadata, sample());
        }
        check("", "", MetadataError::EmptyKey);
        check(
            &"k".repeat(256),
            "",
            MetadataError::KeyTooLong { len: 256, max: 255 },
        );
        check("k\0", "", MetadataError::Nul { key: "k\0".into() });
        check("k", "\0", MetadataError::Nul { key: "k".into() });
        check(
            "_oplog.x",
            "",
            MetadataError::Reserved {
                key: "_oplog.x".into(),
            },
        );
        let value = "v".repeat(METADATA_VALUE_LEN_MAX + 1);
        let (len, max) = (value.len(), METADATA_VALUE_LEN_MAX);
        check(
            "k",
            &value,
            MetadataError::ValueTooLong {
                key: "k".into(),
                len,
                max,
            },
        );
        assert!(sample().push("k", &value[1..]).is_ok());
        assert!(sample().push_key("_oplog.x").is_err());
        assert!(sample().push_reserved("_oplog.unlogged", "vacuum").is_ok());
    }

    #[test]
    fn the_longest_metadata_is_as_long_as_is_said() {
        let value = "v".repeat(METADATA_VALUE_LEN_MAX);
        let mut metadata = Metadata::new();
        for _ in 0..METADATA_PAIRS_MAX {
            let key = "k".repeat(METADATA_KEY_LEN_MAX);
            metadata.push(key, value.as_str()).unwrap();
        }
        let bytes = metadata.to_bytes();
        assert_eq!(bytes.len(), METADATA_LEN_MAX);
        assert_eq!(Metadata::from_bytes(&bytes), Ok(metadata));
    }

    #[test]
    fn the_number_of_pairs_is_bounded() {
        let mut metadata = Metadata::new();
        metadata.push_key("alone").unwrap();
        for number in 1..METADATA_PAIRS_MAX {
            metadata.push("k", number.to_string()).unwrap();
        }
        let full = metadata.clone();
        let too_many = MetadataError::TooMany {
            max: METADATA_PAIRS_MAX,
        };
        assert_eq!(metadata.push("k", "one more"), Err(too_many.clone()));
        assert_eq!(metadata.push_key("other"), Err(too_many.clone()));
        assert_eq!(metadata, full);
        metadata.push("alone", "no pair more").unwrap();
        assert_eq!(metadata.len(), METADATA_PAIRS_MAX);
        assert_eq!(Metadata::from_bytes(&metadata.to_bytes()), Ok(metadata));
        assert_eq!(
            Metadata::from_bytes(&encoded(65, &[])),
            Err(too_many.clone())
        );
        assert_eq!(Metadata::from_bytes(&[0xff; 4]), Err(too_many));
    }

    #[test]
    fn only_the_canonical_bytes_are_read() {
        fn check(count: usize, pairs: &[Vec<u8>], expected: &str) {
            match Metadata::from_bytes(&encoded(count, pairs)) {
                Err(MetadataError::Malformed { what, .. }) => assert_eq!(what, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        let (a, b) = (pair(b"a", 0, Some(b"x")), pair(b"b", 0, None));
        check(2, &[b.clone(), a.clone()], "a key out of order");
        check(2, &[a.clone(), a.clone()], "an ordinal out of order");
        check(
            2,
            &[a.clone(), pair(b"a", 2, Some(b"x"))],
            "an ordinal out of order",
        );
        check(1, &[pair(b"a", 1, Some(b"x"))], "an ordinal out of order");
        check(
            2,
            &[a.clone(), pair(b"a", 1, None)],
            "a key both with and without value",
        );
        check(
            2,
            &[b.clone(), pair(b"b", 1, Some(b""))],
            "a key both with and without value",
        );
        check(1, &[a.clone(), b.clone()], "bytes after the last pair");
        check(3, &[a.clone(), b.clone()], "a cut key");
        check(1, &[pair(b"\xff", 0, None)], "a key that is not UTF-8");
        check(
            1,
            &[pair(b"a", 0, Some(b"\xff"))],
            "a value that is not UTF-8",
        );
        check(
            1,
            &[[&b[..b.len() - 1], &[2]].concat()],
            "an unknown kind of value",
        );
        check(
            1,
            &[[u32::MAX.to_le_bytes().as_slice(), b"abc"].concat()],
            "a cut key",
        );
        let empty_key = encoded(1, &[pair(b"", 0, None)]);
        assert_eq!(
            Metadata::from_bytes(&empty_key),
            Err(MetadataError::EmptyKey)
        );
        let nul = encoded(1, &[pair(b"a", 0, Some(b"\0"))]);
        assert_eq!(
            Metadata::from_bytes(&nul),
            Err(MetadataError::Nul { key: "a".into() })
        );
    }

    #[test]
    fn truncated_and_extended_bytes_are_refused() {
        let bytes = sample().to_bytes();
        for len in 0..bytes.len() {
            assert!(Metadata::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
        assert!(Metadata::from_bytes(&[bytes, vec![0]].concat()).is_err());
    }

    /// Some keys repeat, some have no value.
    fn metadata() -> impl Strategy<Value = Metadata> {
        let pairs = prop::collection::vec(("[a-c_é]{1,3}", prop::option::of("[^\0]{0,8}")), 0..20);
        pairs.prop_map(|pairs| {
            let mut metadata = Metadata::new();
            for (key, value) in pairs {
                match value {
                    Some(value) => metadata.push(key, value).unwrap(),
                    None => metadata.push_key(key).unwrap(),
                }
            }
            metadata
        })
    }

    proptest! {
        #[test]
        fn bytes_round_trip(metadata in metadata()) {
            let bytes = metadata.to_bytes();
            prop_assert_eq!(bytes.capacity(), bytes.len());
            prop_assert_eq!(Metadata::from_bytes(&bytes).unwrap(), metadata);
        }

        #[test]
        fn other_metadata_has_another_hash(a in metadata(), b in metadata()) {
            prop_assert_eq!(a == b, a.hash() == b.hash());
        }

        #[test]
        fn whatever_is_read_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(metadata) = Metadata::from_bytes(&bytes) {
                prop_assert_eq!(metadata.to_bytes(), bytes);
            }
        }

        #[test]
        fn a_changed_byte_never_reads_as_the_same(
            metadata in metadata(), index in any::<prop::sample::Index>(), change in 1..=255u8,
        ) {
            let mut bytes = metadata.to_bytes();
            *index.get_mut(&mut bytes) ^= change;
            if let Ok(changed) = Metadata::from_bytes(&bytes) {
                prop_assert_ne!(&changed, &metadata);
                prop_assert_eq!(changed.to_bytes(), bytes);
            }
        }
    }
}
