use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::rng;
use crate::{KeyId, RngError};

/// Bytes of a data key and of a key-encryption key.
pub const KEY_LEN: usize = 32;

/// A key that seals entries, 256 bits.
///
/// It is stored only wrapped under a key-encryption key. In memory it sits in one place on the
/// heap and is wiped when dropped; it can be neither copied nor compared nor printed, `Debug`
/// shows the id. No entry is encrypted with it directly: each one has a key derived from it, see
/// `FORMAT.md`, section "Derivation".
///
/// ```compile_fail,E0599
/// let key = oplog_core::DataKey::generate().unwrap();
/// let copy = key.clone();
/// ```
pub struct DataKey {
    id: KeyId,
    secret: Secret,
}

/// The data keys that are loaded: one *primary*, which seals, and any number for opening.
///
/// Lives in memory only and asks nobody: a key that is not loaded is an error, so that no
/// transaction ever waits for a key service. It can be shared between threads.
#[derive(Default)]
pub struct Keyring {
    keys: RwLock<Keys>,
}

/// A data key that can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key with this id is loaded.
    #[error("the data key {0} is not loaded")]
    Unknown(KeyId),
    /// No key is marked as the one that seals.
    #[error("no data key is loaded for sealing")]
    NoPrimary,
    /// Another key with the same id is loaded already. The keyring stays as it was.
    #[error("another data key is loaded under the id {0}")]
    Conflict(KeyId),
}

#[derive(Default)]
struct Keys {
    loaded: HashMap<KeyId, Arc<DataKey>>,
    /// Invariant: one of `loaded`.
    primary: Option<Arc<DataKey>>,
}

/// 32 secret bytes in one place, wiped when dropped.
pub(crate) struct Secret(Box<Zeroizing<[u8; KEY_LEN]>>);

impl DataKey {
    /// Makes a new key with a new id.
    ///
    /// # Errors
    ///
    /// [`RngError`] if the operating system's generator fails.
    pub fn generate() -> Result<Self, RngError> {
        Ok(Self {
            id: KeyId::random()?,
            secret: Secret::generate()?,
        })
    }

    /// Takes the bytes of an existing key, for implementations of
    /// [`KeyWrapper`](crate::KeyWrapper). Wipe your own copy of them.
    #[must_use]
    pub fn from_bytes(id: KeyId, bytes: [u8; KEY_LEN]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self {
            id,
            secret: Secret::copy_of(&bytes),
        }
    }

    pub(crate) fn from_slice(id: KeyId, bytes: &[u8; KEY_LEN]) -> Self {
        Self {
            id,
            secret: Secret::copy_of(bytes),
        }
    }

    /// The public name of the key.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The secret bytes, for implementations of [`KeyWrapper`](crate::KeyWrapper).
    #[must_use]
    pub fn expose_secret(&self) -> &[u8; KEY_LEN] {
        self.secret.expose()
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads a key. Loading the same key again changes nothing.
    ///
    /// # Errors
    ///
    /// [`KeyError::Conflict`] if the id belongs to another key.
    pub fn insert(&self, key: DataKey) -> Result<Arc<DataKey>, KeyError> {
        let mut keys = self.write();
        if let Some(loaded) = keys.loaded.get(&key.id) {
            let same = bool::from(loaded.expose_secret().ct_eq(key.expose_secret()));
            return match same {
                true => Ok(Arc::clone(loaded)),
                false => Err(KeyError::Conflict(key.id)),
            };
        }
        let key = Arc::new(key);
        keys.loaded.insert(key.id, Arc::clone(&key));
        Ok(key)
    }

    /// Makes a loaded key the one that seals.
    ///
    /// # Errors
    ///
    /// [`KeyError::Unknown`] if it is not loaded; the primary stays what it was.
    pub fn set_primary(&self, id: &KeyId) -> Result<(), KeyError> {
        let mut keys = self.write();
        let key = keys.loaded.get(id).ok_or(KeyError::Unknown(*id))?;
        keys.primary = Some(Arc::clone(key));
        Ok(())
    }

    /// The key that seals.
    ///
    /// # Errors
    ///
    /// [`KeyError::NoPrimary`] if none was chosen.
    pub fn primary(&self) -> Result<Arc<DataKey>, KeyError> {
        self.read().primary.clone().ok_or(KeyError::NoPrimary)
    }

    /// The key with this id, for opening what it sealed.
    ///
    /// # Errors
    ///
    /// [`KeyError::Unknown`] if it is not loaded.
    pub fn get(&self, id: &KeyId) -> Result<Arc<DataKey>, KeyError> {
        self.read()
            .loaded
            .get(id)
            .cloned()
            .ok_or(KeyError::Unknown(*id))
    }

    /// Whether a key with this id is loaded.
    #[must_use]
    pub fn contains(&self, id: &KeyId) -> bool {
        self.read().loaded.contains_key(id)
    }

    // No method leaves the maps half changed, so a lock that a panic poisoned is still sound.
    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.read();
        let mut ids: Vec<_> = keys.loaded.keys().collect();
        ids.sort();
        f.debug_struct("Keyring")
            .field("primary", &keys.primary.as_ref().map(|key| key.id))
            .field("loaded", &ids)
            .finish()
    }
}

impl Secret {
    pub(crate) fn generate() -> Result<Self, RngError> {
        let mut secret = Self::zeroed();
        rng::fill(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    pub(crate) fn copy_of(bytes: &[u8; KEY_LEN]) -> Self {
        let mut secret = Self::zeroed();
        secret.0.copy_from_slice(bytes);
        secret
    }

    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Allocated before the secret is known, so that the secret never crosses the stack.
    fn zeroed() -> Self {
        Self(Box::new(Zeroizing::new([0; KEY_LEN])))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(id: u8, secret: u8) -> DataKey {
        DataKey::from_bytes(KeyId::from_bytes([id; 16]), [secret; KEY_LEN])
    }

    #[test]
    fn keys_are_found_by_id() {
        let keyring = Keyring::new();
        let id = KeyId::from_bytes([1; 16]);
        assert_eq!(keyring.get(&id).unwrap_err(), KeyError::Unknown(id));
        assert_eq!(keyring.primary().unwrap_err(), KeyError::NoPrimary);
        assert_eq!(keyring.set_primary(&id), Err(KeyError::Unknown(id)));
        keyring.insert(key(1, 7)).unwrap();
        keyring.insert(key(2, 8)).unwrap();
        keyring.set_primary(&id).unwrap();
        assert_eq!(keyring.primary().unwrap().expose_secret(), &[7; KEY_LEN]);
        assert_eq!(
            keyring
                .get(&KeyId::from_bytes([2; 16]))
                .unwrap()
                .expose_secret(),
            &[8; 32]
        );
        assert!(keyring.contains(&id));
    }

    #[test]
    fn an_id_names_one_key() {
        let keyring = Keyring::new();
        keyring.insert(key(1, 7)).unwrap();
        keyring.insert(key(1, 7)).unwrap();
        let id = KeyId::from_bytes([1; 16]);
        assert_eq!(
            keyring.insert(key(1, 8)).unwrap_err(),
            KeyError::Conflict(id)
        );
        assert_eq!(keyring.get(&id).unwrap().expose_secret(), &[7; KEY_LEN]);
    }

    #[test]
    fn generated_keys_differ() {
        let (a, b) = (DataKey::generate().unwrap(), DataKey::generate().unwrap());
        assert_ne!(a.id(), b.id());
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_ne!(a.expose_secret(), &[0; KEY_LEN]);
    }

    #[test]
    fn debug_shows_ids_only() {
        let keyring = Keyring::new();
        // 0xC5 is 197 in decimal: neither spelling may show up.
        keyring.insert(key(0x11, 0xC5)).unwrap();
        keyring.set_primary(&KeyId::from_bytes([0x11; 16])).unwrap();
        let shown = format!("{:?} {keyring:?} {keyring:#?}", key(0x11, 0xC5));
        assert!(shown.contains(&"11".repeat(16)));
        for secret in ["c5", "C5", "197"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
