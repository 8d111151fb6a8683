//! Names of aggregates, which the header of an entry carries in the clear.

use oplog_core::{
    Aggregate, AggregateError, Envelope, EnvelopeLimits, Hash, LogId, NewHeader, SCHEMA, SealError,
    seal,
};

use crate::bound::bounded;
use crate::canary::check_error;
use crate::forge;

pub(super) fn run(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else {
        return;
    };
    let aggregate = bounded(bytes.len(), 1, || Aggregate::new(name));
    assert_eq!(aggregate.as_str(), name);
    let checked = bounded(bytes.len(), 0, || aggregate.check());
    if let Err(error) = &checked {
        check_error(error, &[]);
    }
    let expected = match name {
        "" => Err(AggregateError::Empty),
        _ if name.len() > 255 => Err(AggregateError::TooLong {
            len: name.len(),
            max: 255,
        }),
        _ => match name.find('\0') {
            Some(offset) => Err(AggregateError::Nul { offset }),
            None if name.starts_with("_oplog/") => Err(AggregateError::Reserved),
            None => Ok(()),
        },
    };
    assert_eq!(checked, expected);
    check_sealed(&aggregate, checked);
}

/// What may be written comes back; what may not is not sealed.
fn check_sealed(aggregate: &Aggregate, checked: Result<(), AggregateError>) {
    let header = NewHeader {
        log_id: LogId::from_bytes(forge::LOG_ID),
        epoch: 1,
        schema: SCHEMA,
        sequence: 1,
        created_us: 0,
        previous: Hash::from_bytes([0; 32]),
        metadata_hash: Hash::from_bytes([0; 32]),
        aggregate,
        group: None,
    };
    let key = forge::data_key();
    match (seal(&header, b"queue", &key), checked) {
        (Ok(sealed), Ok(()) | Err(AggregateError::Reserved)) => {
            let envelope = Envelope::parse(&sealed, &EnvelopeLimits::default());
            let envelope = envelope.expect("what was sealed can be read");
            assert_eq!(envelope.header().aggregate, *aggregate);
            assert_eq!(*envelope.open(&key).expect("it is genuine"), b"queue");
        }
        (Err(SealError::Aggregate(error)), Err(checked)) => assert_eq!(error, checked),
        (sealed, checked) => panic!("{checked:?}, but {:?}", sealed.map(drop)),
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    vec![vec![b'x'; len], vec![0; len]]
}
