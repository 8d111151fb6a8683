//! Hashes and ids, as text and as bytes.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use oplog_core::{Hash, IdError, KeyId, LogId, TxnId};

use crate::bound::bounded;
use crate::canary::check_error;

pub(super) fn run(bytes: &[u8]) {
    check::<Hash>(bytes, 32);
    check::<LogId>(bytes, 16);
    check::<KeyId>(bytes, 16);
    check::<TxnId>(bytes, 16);
}

fn check<T>(bytes: &[u8], len: usize)
where
    T: FromStr<Err = IdError> + for<'a> TryFrom<&'a [u8], Error = IdError>,
    T: AsRef<[u8]> + Display + Debug + PartialEq,
{
    match bounded(bytes.len(), 0, || T::try_from(bytes)) {
        Ok(id) => assert_eq!(id.as_ref(), bytes),
        Err(error) => {
            assert_ne!(bytes.len(), len);
            check_error(&error, &[]);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match bounded(text.len(), 0, || text.parse::<T>()) {
        Ok(id) => {
            assert_eq!(id.to_string(), text.to_ascii_lowercase());
            assert_eq!(id.to_string().parse::<T>().ok(), Some(id));
        }
        Err(error) => {
            let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(!is_hex || text.len() != 2 * len);
            check_error(&error, &[]);
        }
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    vec![vec![b'a'; len], vec![b'x'; len]]
}
