use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::RngError;
use crate::rng;

/// A SHA-256 value of this crate, see `FORMAT.md`, section "Hashes".
///
/// Which input it was made of is fixed by a domain string in front of it, so a hash of one kind
/// never equals a hash of another kind. `Display` and `FromStr` use 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

/// Identity of one log, drawn at random when its tables are created.
///
/// Every entry carries it, so an entry of another log is found out even if both logs share their
/// keys. Readers pin it in their own configuration: a value read from the same database would
/// prove nothing. `Display` and `FromStr` use 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId([u8; 16]);

/// Identity of a data key, drawn at random when the key is made. Public, it stands in every entry.
///
/// `Display` and `FromStr` use 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

/// Identity of a transaction that wrote several entries, drawn at random.
///
/// `Display` and `FromStr` use 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId([u8; 16]);

/// Bytes or text that are no [`Hash`](struct@Hash), [`LogId`], [`KeyId`] or [`TxnId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The slice has another length than the type.
    #[error("expected {expected} bytes, found {found}")]
    Length {
        /// Bytes that the type holds.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// The text has another length than two digits per byte.
    #[error("expected {expected} hexadecimal digits, found {found} bytes of text")]
    TextLength {
        /// Digits that the type needs.
        expected: usize,
        /// Bytes of text that were given.
        found: usize,
    },
    /// The text holds something else than hexadecimal digits.
    #[error("no hexadecimal digit at byte {offset}")]
    Digit {
        /// Offset of the first byte that is none.
        offset: usize,
    },
}

const GENESIS_DOMAIN: &[u8] = b"oplog/v1/genesis\0";
const ENTRY_HASH_DOMAIN: &[u8] = b"oplog/v1/entry-hash\0";

/// The hash that the first entry of an aggregate names as its predecessor.
///
/// It binds log and aggregate, so that not even the first entry can be moved elsewhere.
/// Source: `FORMAT.md`, section "Hashes".
#[must_use]
pub fn genesis(log_id: &LogId, aggregate: &str) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(GENESIS_DOMAIN);
    hasher.update(log_id.as_bytes());
    hasher.update(aggregate.as_bytes());
    Hash(hasher.finalize().into())
}

/// The hash of an entry as it is stored: over the sealed bytes, so no key is needed to check it.
///
/// The next entry of the aggregate names it as its predecessor. Source: `FORMAT.md`, section
/// "Hashes".
#[must_use]
pub fn entry_hash(envelope: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(ENTRY_HASH_DOMAIN);
    hasher.update((envelope.len() as u64).to_le_bytes());
    hasher.update(envelope);
    Hash(hasher.finalize().into())
}

macro_rules! fixed_bytes {
    ($name:ident, $len:literal) => {
        impl $name {
            /// Number of bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are stored.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes as they are stored.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                match <[u8; $len]>::try_from(bytes) {
                    Ok(bytes) => Ok(Self(bytes)),
                    Err(_) => Err(IdError::Length {
                        expected: $len,
                        found: bytes.len(),
                    }),
                }
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                parse_hex(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hex(&self.0, f)?;
                f.write_str(")")
            }
        }
    };
}

fixed_bytes!(Hash, 32);
fixed_bytes!(LogId, 16);
fixed_bytes!(KeyId, 16);
fixed_bytes!(TxnId, 16);

macro_rules! random_id {
    ($name:ident) => {
        impl $name {
            /// Draws a new one from the operating system's generator.
            ///
            /// # Errors
            ///
            /// [`RngError`] if the generator fails.
            pub fn random() -> Result<Self, RngError> {
                let mut bytes = [0; Self::LEN];
                rng::fill(&mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

random_id!(LogId);
random_id!(KeyId);
random_id!(TxnId);

pub(crate) fn write_hex(bytes: &[u8], f: &mut impl fmt::Write) -> fmt::Result {
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_hex(text: &str, bytes: &mut [u8]) -> Result<(), IdError> {
    let expected = bytes.len() * 2;
    if text.len() != expected {
        return Err(IdError::TextLength {
            expected,
            found: text.len(),
        });
    }
    let text = text.as_bytes();
    for (index, byte) in bytes.iter_mut().enumerate() {
        let high = digit(text, index * 2)?;
        let low = digit(text, index * 2 + 1)?;
        *byte = high << 4 | low;
    }
    Ok(())
}

fn digit(text: &[u8], offset: usize) -> Result<u8, IdError> {
    match text[offset] {
        digit @ b'0'..=b'9' => Ok(digit - b'0'),
        digit @ b'a'..=b'f' => Ok(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(IdError::Digit { offset }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn genesis_known_answer() {
        let log_id = LogId::from_bytes(std::array::from_fn(|i| 0x10 + i as u8));
        assert_eq!(
            genesis(&log_id, "iam_user").to_string(),
            "7f4e53fde610aa769bae763e4520c54444a407a9b2f7561d2cebc60086f85a26"
        );
    }

    #[test]
    fn genesis_depends_on_log_and_aggregate() {
        let (a, b) = (LogId::from_bytes([1; 16]), LogId::from_bytes([2; 16]));
        assert_ne!(genesis(&a, "files"), genesis(&b, "files"));
        assert_ne!(genesis(&a, "files"), genesis(&a, "file"));
    }

    #[test]
    fn text_round_trips() {
        let hash = Hash::from_bytes(std::array::from_fn(|i| (i * 8) as u8));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        assert_eq!(format!("{hash:?}"), format!("Hash({hash})"));
    }

    #[test]
    fn bad_text_is_an_error() {
        fn check(text: &str, expected: IdError) {
            assert_eq!(text.parse::<LogId>(), Err(expected));
        }
        check(
            "",
            IdError::TextLength {
                expected: 32,
                found: 0,
            },
        );
        check(
            &"0".repeat(33),
            IdError::TextLength {
                expected: 32,
                found: 33,
            },
        );
        check(
            &format!("{}g", "0".repeat(31)),
            IdError::Digit { offset: 31 },
        );
        // A character of two bytes must neither split nor pass for two digits.
        check(
            &format!("0é{}", "0".repeat(29)),
            IdError::Digit { offset: 1 },
        );
    }

    #[test]
    fn bad_length_is_an_error() {
        assert_eq!(
            TxnId::try_from([0; 15].as_slice()),
            Err(IdError::Length {
                expected: 16,
                found: 15
            })
        );
        assert_eq!(
            KeyId::try_from([7; 16].as_slice()),
            Ok(KeyId::from_bytes([7; 16]))
        );
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(LogId::random().unwrap(), LogId::random().unwrap());
        assert_ne!(KeyId::random().unwrap(), KeyId::random().unwrap());
        assert_ne!(TxnId::random().unwrap(), TxnId::random().unwrap());
    }
}
