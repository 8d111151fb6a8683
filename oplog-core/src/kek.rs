use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::hash::write_hex;
use crate::key::{KEY_LEN, Secret};
use crate::rng;
use crate::{DataKey, KeyId, LogId, RngError};

/// The longest scope and the longest purpose of a data key, in bytes of UTF-8.
pub const KEY_NAME_LEN_MAX: usize = 255;

/// A key-encryption key: 256 bits that wrap data keys and live outside the database.
///
/// It is wiped when dropped and can be neither copied nor printed; `Debug` shows its id. Its text
/// form is one line, `oplog-kek-v1:` and 43 characters of unpadded base64url. Source:
/// `FORMAT.md`, section "Key-encryption keys".
///
/// ```compile_fail,E0599
/// let kek = oplog_core::Kek::generate().unwrap();
/// let copy = kek.clone();
/// ```
pub struct Kek {
    id: KekId,
    secret: Secret,
}

/// The public name of a key-encryption key, stored beside every data key that it wraps.
///
/// For a [`Kek`] it is `k1:` and 32 hexadecimal digits that follow from the key. Other
/// implementations of [`KeyWrapper`] choose their own, such as the name that a key service uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekId(String);

/// What a wrapped data key is bound to: it opens nowhere else and as nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapContext<'a> {
    /// The log that the data key belongs to.
    pub log_id: LogId,
    /// The data key.
    pub key_id: KeyId,
    /// Whose data it seals, `default` unless there are several scopes.
    pub scope: &'a str,
    /// What it is for, `entry` for keys that seal entries.
    pub purpose: &'a str,
    /// Number of the key within its scope, from 1.
    pub version: u32,
}

/// Wraps data keys under a key that stays outside the database: a file's, a key service's, an HSM's.
///
/// [`Kek`] is the built-in implementation. An implementation for a service that takes associated
/// data passes it [`WrapContext::to_bytes`]; for one that does not, wrapping
/// [`WrapContext::bind`]'s result binds the context all the same.
pub trait KeyWrapper: Send + Sync {
    /// The public name of the wrapping key.
    fn kek_id(&self) -> KekId;

    /// Wraps a data key for storage.
    ///
    /// # Errors
    ///
    /// [`KeyWrapError::NameTooLong`] or [`KeyWrapError::OtherKey`] for a context that can't be,
    /// [`KeyWrapError::Rng`] or [`KeyWrapError::Provider`] if the wrapping itself fails.
    fn wrap(&self, context: &WrapContext<'_>, key: &DataKey) -> Result<Vec<u8>, KeyWrapError>;

    /// Gets a data key back from its stored form.
    ///
    /// # Errors
    ///
    /// [`KeyWrapError::Malformed`] or [`KeyWrapError::UnsupportedVersion`] for bytes that this
    /// implementation did not write, [`KeyWrapError::Integrity`] if they were wrapped under another
    /// key or for another context, [`KeyWrapError::Provider`] if the service failed.
    fn unwrap(&self, context: &WrapContext<'_>, wrapped: &[u8]) -> Result<DataKey, KeyWrapError>;
}

/// A data key that could not be wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyWrapError {
    /// No nonce could be drawn.
    #[error("no nonce for the wrapped key")]
    Rng(#[from] RngError),
    /// Scope or purpose is longer than [`KEY_NAME_LEN_MAX`].
    #[error("the {what} of a data key takes {len} bytes, {max} are allowed")]
    NameTooLong {
        /// `scope` or `purpose`.
        what: &'static str,
        /// Bytes of the name.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The context names another key than the one to be wrapped.
    #[error("the data key {key} can't be wrapped as {context}")]
    OtherKey {
        /// The key that the context names.
        context: KeyId,
        /// The key that was given.
        key: KeyId,
    },
    /// The stored bytes are no wrapped key.
    #[error("malformed wrapped key: {what}")]
    Malformed {
        /// What is wrong with them.
        what: &'static str,
    },
    /// Wrapped in a way that this version does not know.
    #[error("wrapped key version {0} is not known")]
    UnsupportedVersion(u8),
    /// Not wrapped under this key, or not for this log, scope, purpose and version.
    #[error("the wrapped data key {key_id} fails its integrity check")]
    Integrity {
        /// The data key that the context names.
        key_id: KeyId,
    },
    /// The key service failed.
    #[error("the key service failed")]
    Provider {
        /// Whether the same call may work later.
        retryable: bool,
        /// What it said. Must not hold key bytes.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Text that is no list of key-encryption keys. Never holds any of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KekTextError {
    /// There is no key in it.
    #[error("no key-encryption key")]
    Empty,
    /// The line does not begin with `oplog-kek-v1:`.
    #[error("line {line} does not begin with `oplog-kek-v1:`")]
    Prefix {
        /// The line, from 1.
        line: usize,
    },
    /// The rest of the line is not 43 characters.
    #[error("the key in line {line} takes {len} bytes, it must be {expected}")]
    Length {
        /// The line, from 1.
        line: usize,
        /// Bytes found behind the prefix.
        len: usize,
        /// Bytes that it must be.
        expected: usize,
    },
    /// The rest of the line is not the unpadded base64url form of 32 bytes.
    #[error("the key in line {line} is not base64url")]
    Encoding {
        /// The line, from 1.
        line: usize,
    },
    /// The same key stands there twice.
    #[error("line {line} repeats the key of line {first}")]
    Repeated {
        /// The line, from 1.
        line: usize,
        /// The line where it stood first.
        first: usize,
    },
}

const TEXT_PREFIX: &str = "oplog-kek-v1:";
/// Base64 characters of 32 bytes without padding.
const TEXT_LEN: usize = 43;
const KEK_ID_DOMAIN: &[u8] = b"oplog/v1/kek-id\0";
const WRAP_DOMAIN: &[u8] = b"oplog/v1/dek-wrap\0";

const WRAP_VERSION: u8 = 1;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
/// A data key and the hash of its context.
const BOUND_LEN: usize = KEY_LEN + 32;
const WRAPPED_LEN: usize = 1 + NONCE_LEN + BOUND_LEN + TAG_LEN;

impl Kek {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// [`RngError`] if the operating system's generator fails.
    pub fn generate() -> Result<Self, RngError> {
        Ok(Self::new(Secret::generate()?))
    }

    /// Takes 32 uniformly random bytes, such as a secret store holds. Wipe your own copy of them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self::new(Secret::copy_of(&bytes))
    }

    /// Reads one line of the text form, without its line break.
    ///
    /// # Errors
    ///
    /// [`KekTextError::Prefix`], [`KekTextError::Length`] or [`KekTextError::Encoding`], with line 1.
    pub fn parse_line(line: &str) -> Result<Self, KekTextError> {
        parse_line(line, 1)
    }

    /// Reads a key file or variable: one key per line, the first is the primary.
    ///
    /// One line break at the end is allowed; spaces, comments, empty lines and carriage returns are
    /// not, because a key that is almost right must not pass for another one.
    ///
    /// # Errors
    ///
    /// [`KekTextError::Empty`] for empty text, else the error of the first wrong line:
    /// [`Prefix`](KekTextError::Prefix), [`Length`](KekTextError::Length),
    /// [`Encoding`](KekTextError::Encoding) or [`Repeated`](KekTextError::Repeated).
    ///
    /// # Examples
    ///
    /// ```
    /// use oplog_core::Kek;
    ///
    /// let kek = Kek::generate()?;
    /// let text = format!("{}\n", *kek.to_text());
    /// let keys = Kek::parse_text(&text)?;
    /// assert_eq!(keys[0].id(), kek.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse_text(text: &str) -> Result<Vec<Self>, KekTextError> {
        if text.is_empty() {
            return Err(KekTextError::Empty);
        }
        let text = text.strip_suffix('\n').unwrap_or(text);
        let mut keys = Vec::<Self>::new();
        let mut lines = BTreeMap::new();
        for (line, content) in (1..).zip(text.split('\n')) {
            let key = parse_line(content, line)?;
            if let Some(first) = lines.insert(key.id.clone(), line) {
                return Err(KekTextError::Repeated { line, first });
            }
            keys.push(key);
        }
        Ok(keys)
    }

    /// The text form: one line without a line break. Wiped when dropped.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "can't happen, see the two messages"
    )]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut encoded = Zeroizing::new([0; TEXT_LEN]);
        URL_SAFE_NO_PAD
            .encode_slice(self.secret.expose(), encoded.as_mut_slice())
            .expect("32 bytes are 43 characters");
        let encoded = std::str::from_utf8(encoded.as_slice()).expect("base64 is ASCII");
        // With the capacity known, the string never moves and leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(TEXT_PREFIX.len() + TEXT_LEN));
        text.push_str(TEXT_PREFIX);
        text.push_str(encoded);
        text
    }

    /// The public name of the key.
    #[must_use]
    pub fn id(&self) -> &KekId {
        &self.id
    }

    fn new(secret: Secret) -> Self {
        Self {
            id: KekId::of(secret.expose()),
            secret,
        }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.secret.expose().into())
    }

    fn wrap_with_nonce(
        &self,
        context: &WrapContext<'_>,
        key: &DataKey,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, KeyWrapError> {
        let aad = context.to_bytes()?;
        let mut bound = context.bind(key)?;
        let tag = self
            .cipher()
            .encrypt_inout_detached(&nonce.into(), &aad, bound.as_mut_slice().into())
            .expect("64 bytes are no more than the cipher takes");
        let mut wrapped = Vec::with_capacity(WRAPPED_LEN);
        wrapped.push(WRAP_VERSION);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(bound.as_slice());
        wrapped.extend_from_slice(&tag);
        Ok(wrapped)
    }
}

impl KeyWrapper for Kek {
    fn kek_id(&self) -> KekId {
        self.id.clone()
    }

    fn wrap(&self, context: &WrapContext<'_>, key: &DataKey) -> Result<Vec<u8>, KeyWrapError> {
        let mut nonce = [0; NONCE_LEN];
        rng::fill(&mut nonce)?;
        self.wrap_with_nonce(context, key, nonce)
    }

    fn unwrap(&self, context: &WrapContext<'_>, wrapped: &[u8]) -> Result<DataKey, KeyWrapError> {
        let aad = context.to_bytes()?;
        let integrity = KeyWrapError::Integrity {
            key_id: context.key_id,
        };
        let Some((&version, rest)) = wrapped.split_first() else {
            return Err(KeyWrapError::Malformed { what: "no bytes" });
        };
        if version != WRAP_VERSION {
            return Err(KeyWrapError::UnsupportedVersion(version));
        }
        let (Some((nonce, rest)), true) = (
            rest.split_first_chunk::<NONCE_LEN>(),
            wrapped.len() == WRAPPED_LEN,
        ) else {
            return Err(KeyWrapError::Malformed { what: "length" });
        };
        let Some((sealed, tag)) = rest.split_last_chunk::<TAG_LEN>() else {
            return Err(KeyWrapError::Malformed { what: "length" });
        };
        let mut bound = Zeroizing::new([0; BOUND_LEN]);
        bound.copy_from_slice(sealed);
        let opened = self.cipher().decrypt_inout_detached(
            &(*nonce).into(),
            &aad,
            bound.as_mut_slice().into(),
            &Tag::from(*tag),
        );
        match opened {
            Ok(()) => context.unbind(bound.as_slice()),
            Err(_) => Err(integrity),
        }
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kek")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl KekId {
    /// Takes a name as it is stored.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash is of a key with 256 bits of entropy, so it tells nothing about the key.
    fn of(secret: &[u8; KEY_LEN]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(KEK_ID_DOMAIN);
        hasher.update(secret);
        let mut id = String::from("k1:");
        write_hex(&hasher.finalize()[..16], &mut id).expect("a String takes whatever is written");
        Self(id)
    }
}

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for KekId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl WrapContext<'_> {
    /// The bytes that stand for the context. Source: `FORMAT.md`, section "Wrapped data keys".
    ///
    /// # Errors
    ///
    /// [`KeyWrapError::NameTooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, KeyWrapError> {
        let mut bytes = Vec::with_capacity(
            WRAP_DOMAIN.len() + 32 + 2 + self.scope.len() + 2 + self.purpose.len() + 4,
        );
        bytes.extend_from_slice(WRAP_DOMAIN);
        bytes.extend_from_slice(self.log_id.as_bytes());
        bytes.extend_from_slice(self.key_id.as_bytes());
        put_name(&mut bytes, "scope", self.scope)?;
        put_name(&mut bytes, "purpose", self.purpose)?;
        bytes.extend_from_slice(&self.version.to_le_bytes());
        Ok(bytes)
    }

    /// The data key followed by the hash of the context: what is encrypted.
    ///
    /// A key service that knows no associated data keeps the binding if it encrypts this instead
    /// of the bare key.
    ///
    /// # Errors
    ///
    /// [`KeyWrapError::NameTooLong`], or [`KeyWrapError::OtherKey`] if the context names another key.
    pub fn bind(&self, key: &DataKey) -> Result<Zeroizing<[u8; BOUND_LEN]>, KeyWrapError> {
        if *key.id() != self.key_id {
            return Err(KeyWrapError::OtherKey {
                context: self.key_id,
                key: *key.id(),
            });
        }
        let hash = self.hash()?;
        let mut bound = Zeroizing::new([0; BOUND_LEN]);
        bound[..KEY_LEN].copy_from_slice(key.expose_secret());
        bound[KEY_LEN..].copy_from_slice(&hash);
        Ok(bound)
    }

    /// Gets the data key back from what [`bind`](Self::bind) gave.
    ///
    /// # Errors
    ///
    /// [`KeyWrapError::Integrity`] if it was bound to another context, or
    /// [`KeyWrapError::NameTooLong`].
    pub fn unbind(&self, bound: &[u8]) -> Result<DataKey, KeyWrapError> {
        let integrity = KeyWrapError::Integrity {
            key_id: self.key_id,
        };
        let Some((key, hash)) = bound.split_first_chunk::<KEY_LEN>() else {
            return Err(integrity);
        };
        match bool::from(hash.ct_eq(&self.hash()?)) {
            true => Ok(DataKey::from_slice(self.key_id, key)),
            false => Err(integrity),
        }
    }

    fn hash(&self) -> Result<[u8; 32], KeyWrapError> {
        Ok(Sha256::digest(self.to_bytes()?).into())
    }
}

/// Both names are prefixed with their length, so no two contexts share their bytes.
fn put_name(bytes: &mut Vec<u8>, what: &'static str, name: &str) -> Result<(), KeyWrapError> {
    if name.len() > KEY_NAME_LEN_MAX {
        return Err(KeyWrapError::NameTooLong {
            what,
            len: name.len(),
            max: KEY_NAME_LEN_MAX,
        });
    }
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    Ok(())
}

fn parse_line(content: &str, line: usize) -> Result<Kek, KekTextError> {
    let Some(encoded) = content.strip_prefix(TEXT_PREFIX) else {
        return Err(KekTextError::Prefix { line });
    };
    if encoded.len() != TEXT_LEN {
        return Err(KekTextError::Length {
            line,
            len: encoded.len(),
            expected: TEXT_LEN,
        });
    }
    // The decoder wants room for whole groups of four characters, 33 bytes.
    let mut decoded = Zeroizing::new([0; KEY_LEN + 1]);
    match URL_SAFE_NO_PAD.decode_slice(encoded, decoded.as_mut_slice()) {
        Ok(KEY_LEN) => {}
        _ => return Err(KekTextError::Encoding { line }),
    }
    match decoded.first_chunk::<KEY_LEN>() {
        Some(secret) => Ok(Kek::new(Secret::copy_of(secret))),
        None => Err(KekTextError::Encoding { line }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "oplog-kek-v1:gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8";
    const WRAPPED: &str = "01404142434445464748494a4b4c4d4e4f5051525354555657f10d71f75ff5f25df3\
        1b7dd8faa3935a2256607d11518afbd2a3ef175e4813d77099679b5d629207f86073516dfeaedc23f0a3ea5c0fd2\
        dd35f15fb260688b15b67659fac523715c9448752bf4f00e87";

    fn sequence_of_bytes<const N: usize>(first: u8) -> [u8; N] {
        std::array::from_fn(|index| first + index as u8)
    }

    fn kek() -> Kek {
        Kek::from_bytes(sequence_of_bytes(0x80))
    }

    fn key() -> DataKey {
        DataKey::from_bytes(
            KeyId::from_bytes(sequence_of_bytes(0xa0)),
            sequence_of_bytes(0),
        )
    }

    fn context() -> WrapContext<'static> {
        WrapContext {
            log_id: LogId::from_bytes(sequence_of_bytes(0x10)),
            key_id: *key().id(),
            scope: "default",
            purpose: "entry",
            version: 1,
        }
    }

    /// `None` if the wrapped key did not open.
    fn unwrapped(context: &WrapContext<'_>, wrapped: &[u8]) -> Option<DataKey> {
        kek().unwrap(context, wrapped).ok()
    }

    #[test]
    fn text_known_answer() {
        assert_eq!(*kek().to_text(), TEXT);
        let parsed = Kek::parse_line(TEXT).unwrap();
        assert_eq!(parsed.secret.expose(), kek().secret.expose());
        assert_eq!(parsed.id().as_str(), "k1:342a3a271cf6ee051e039284085a194a");
    }

    #[test]
    fn wrap_known_answer() {
        let wrapped = kek()
            .wrap_with_nonce(&context(), &key(), sequence_of_bytes(0x40))
            .unwrap();
        let mut hex = String::new();
        write_hex(&wrapped, &mut hex).unwrap();
        assert_eq!(hex, WRAPPED);
        let opened = kek().unwrap(&context(), &wrapped).unwrap();
        assert_eq!(opened.expose_secret(), key().expose_secret());
        assert_eq!(opened.id(), key().id());
    }

    #[test]
    fn several_keys_are_read_in_order() {
        let (first, second) = (Kek::generate().unwrap(), Kek::generate().unwrap());
        assert_ne!(first.id(), second.id());
        let text = format!("{}\n{}", *first.to_text(), *second.to_text());
        for text in [text.clone(), text + "\n"] {
            let keys = Kek::parse_text(&text).unwrap();
            let ids: Vec<_> = keys.iter().map(Kek::id).collect();
            assert_eq!(ids, [first.id(), second.id()]);
        }
    }

    #[test]
    fn text_that_is_almost_right_is_refused() {
        fn check(text: &str, expected: KekTextError) {
            assert_eq!(Kek::parse_text(text).unwrap_err(), expected);
        }
        let length = |line, len| KekTextError::Length {
            line,
            len,
            expected: 43,
        };
        check("", KekTextError::Empty);
        check("\n", KekTextError::Prefix { line: 1 });
        check(&format!("{TEXT}\n\n"), KekTextError::Prefix { line: 2 });
        check(&format!("\n{TEXT}"), KekTextError::Prefix { line: 1 });
        check(&format!(" {TEXT}"), KekTextError::Prefix { line: 1 });
        check(&TEXT.replace("v1", "v2"), KekTextError::Prefix { line: 1 });
        check(&TEXT.to_uppercase(), KekTextError::Prefix { line: 1 });
        check(&format!("{TEXT} "), length(1, 44));
        check(&format!("{TEXT}="), length(1, 44));
        check(&format!("{TEXT}\r\n"), length(1, 44));
        check(&TEXT[..TEXT.len() - 1], length(1, 42));
        check(
            &format!("{TEXT}\n{TEXT}\n"),
            KekTextError::Repeated { line: 2, first: 1 },
        );
        check(&format!("{TEXT}\noplog-kek-v1:\n"), length(2, 0));
        check(
            &TEXT.replace("gIG", "g+G"),
            KekTextError::Encoding { line: 1 },
        );
        check(
            &TEXT.replace("gIG", "g/G"),
            KekTextError::Encoding { line: 1 },
        );
        check(
            &TEXT.replace("gIG", "g\0G"),
            KekTextError::Encoding { line: 1 },
        );
        // The last character holds 4 bits; another two of it must not be ignored.
        check(
            &TEXT.replace("np8", "np9"),
            KekTextError::Encoding { line: 1 },
        );
    }

    #[test]
    fn a_wrap_opens_only_as_what_it_was() {
        let wrapped = kek().wrap(&context(), &key()).unwrap();
        assert!(unwrapped(&context(), &wrapped).is_some());
        let contexts = [
            WrapContext {
                log_id: LogId::from_bytes([0; 16]),
                ..context()
            },
            WrapContext {
                key_id: KeyId::from_bytes([0; 16]),
                ..context()
            },
            WrapContext {
                scope: "other",
                ..context()
            },
            WrapContext {
                scope: "defaulte",
                purpose: "ntry",
                ..context()
            },
            WrapContext {
                purpose: "other",
                ..context()
            },
            WrapContext {
                version: 2,
                ..context()
            },
        ];
        for context in contexts {
            let error = kek().unwrap(&context, &wrapped).unwrap_err();
            let KeyWrapError::Integrity { key_id } = error else {
                panic!("{error:?}")
            };
            assert_eq!(key_id, context.key_id);
        }
        let other = Kek::from_bytes([1; 32]);
        let error = other.unwrap(&context(), &wrapped).unwrap_err();
        assert!(matches!(error, KeyWrapError::Integrity { .. }));
    }

    /// What a service without associated data stores is bound to its context all the same.
    #[test]
    fn the_hash_binds_without_associated_data() {
        let bound = context().bind(&key()).unwrap();
        assert!(context().unbind(bound.as_slice()).is_ok());
        let other = WrapContext {
            version: 2,
            ..context()
        };
        assert!(other.unbind(bound.as_slice()).is_err());
        assert!(context().unbind(&bound[..63]).is_err());
        assert!(context().unbind(&bound[..31]).is_err());
        assert!(context().unbind(&[]).is_err());
    }

    #[test]
    fn what_cannot_be_bound_is_not_wrapped() {
        let long = "x".repeat(256);
        for (what, context) in [
            (
                "scope",
                WrapContext {
                    scope: &long,
                    ..context()
                },
            ),
            (
                "purpose",
                WrapContext {
                    purpose: &long,
                    ..context()
                },
            ),
        ] {
            match kek().wrap(&context, &key()).unwrap_err() {
                KeyWrapError::NameTooLong {
                    what: found,
                    len: 256,
                    max: 255,
                } => {
                    assert_eq!(found, what);
                }
                error => panic!("{error:?}"),
            }
        }
        let other = DataKey::generate().unwrap();
        let error = kek().wrap(&context(), &other).unwrap_err();
        assert!(matches!(error, KeyWrapError::OtherKey { key, .. } if key == *other.id()));
    }

    #[test]
    fn malformed_wraps_are_told_apart() {
        fn check(wrapped: &[u8], expected: &str) {
            assert_eq!(
                kek().unwrap(&context(), wrapped).unwrap_err().to_string(),
                expected
            );
        }
        let wrapped = kek().wrap(&context(), &key()).unwrap();
        check(&[], "malformed wrapped key: no bytes");
        check(&[2], "wrapped key version 2 is not known");
        check(
            &[&wrapped[..], &[0]].concat(),
            "malformed wrapped key: length",
        );
        for len in 1..wrapped.len() {
            check(&wrapped[..len], "malformed wrapped key: length");
        }
    }

    #[test]
    fn no_single_bit_of_a_wrap_can_change() {
        let wrapped = kek().wrap(&context(), &key()).unwrap();
        for bit in 0..wrapped.len() * 8 {
            let mut changed = wrapped.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrapped(&context(), &changed).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn debug_and_errors_show_no_secret() {
        let kek = Kek::from_bytes([0xC5; 32]);
        let text = kek.to_text();
        let secret = &text[TEXT_PREFIX.len()..][..8];
        let broken = format!("{}!", &text[..text.len() - 1]);
        let error = Kek::parse_text(&broken).unwrap_err();
        let shown = format!("{kek:?} {kek:#?} {error:?} {error}");
        for secret in [secret, "c5c5", "C5C5", "197"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes in any::<[u8; 32]>()) {
            let parsed = Kek::parse_line(&Kek::from_bytes(bytes).to_text()).unwrap();
            prop_assert_eq!(parsed.secret.expose(), &bytes);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(oplog-kek-v1:)?[-_A-Za-z0-9+/=é\n]{0,44}") {
            if let Ok(keys) = Kek::parse_text(&text) {
                prop_assert!(text.starts_with(keys[0].to_text().as_str()));
            }
        }

        #[test]
        fn wraps_round_trip(
            secret in any::<[u8; 32]>(), id in any::<[u8; 16]>(), scope in ".{0,40}",
            purpose in ".{0,40}", version in any::<u32>(),
        ) {
            let (scope, purpose) = (scope.as_str(), purpose.as_str());
            let key_id = KeyId::from_bytes(id);
            let context = WrapContext { key_id, scope, purpose, version, ..context() };
            let key = DataKey::from_bytes(key_id, secret);
            let wrapped = kek().wrap(&context, &key).unwrap();
            prop_assert_eq!(wrapped.len(), WRAPPED_LEN);
            let opened = kek().unwrap(&context, &wrapped).unwrap();
            prop_assert_eq!(opened.expose_secret(), &secret);
        }

        #[test]
        fn arbitrary_wraps_never_open(mut wrapped in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(unwrapped(&context(), &wrapped).is_none());
            wrapped.resize(WRAPPED_LEN, 0);
            wrapped[0] = WRAP_VERSION;
            prop_assert!(unwrapped(&context(), &wrapped).is_none());
        }
    }
}
