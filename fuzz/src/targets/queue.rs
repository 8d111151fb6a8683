use oplog_core::{Message, Queue, QueueError, QueueLimits, queue};

use crate::bound::bounded;
use crate::canary::check_error;
use crate::targets::message;
use crate::wire;

/// A message of nine bytes is 344 in memory, in a vector that is being doubled.
const PER_BYTE: usize = 64;

const FEW: QueueLimits = QueueLimits {
    messages_max: 2,
    queue_len_max: 256,
};

pub(super) fn run(bytes: &[u8]) {
    let limits = QueueLimits::default();
    let read = |limits: &QueueLimits| -> Result<Vec<Message>, QueueError> {
        queue::read(bytes, limits).collect()
    };
    let all = bounded(bytes.len(), PER_BYTE, || read(&limits));
    match &all {
        Ok(messages) => check(messages, bytes.len()),
        Err(error) => check_queue_error(error, bytes),
    }

    // An error ends it, and what came before the error does not depend on the limits.
    let mut messages = queue::read(bytes, &FEW);
    let good: Vec<Message> = messages.by_ref().map_while(Result::ok).collect();
    assert!(messages.next().is_none());
    assert!(good.len() <= FEW.messages_max);
    assert!(good.is_empty() || bytes.len() <= FEW.queue_len_max);
    match (read(&FEW), all) {
        (Ok(few), Ok(all)) => assert_eq!(encoded(&few), encoded(&all)),
        (Ok(_), Err(error)) => panic!("only the narrower limits read it: {error}"),
        (Err(QueueError::TooManyMessages { max }), _) => assert_eq!(max, FEW.messages_max),
        (Err(QueueError::TooLong { len, .. }), _) => assert_eq!(len, bytes.len()),
        (Err(few), all) => assert_eq!(Some(few), all.err()),
    }
}

fn check(messages: &[Message], len: usize) {
    let mut queue = Queue::new();
    for message in messages {
        message::check(message, len);
        queue.push(message).expect("what was read can be queued");
    }
    assert_eq!(queue.len(), messages.len());
    let again: Vec<Message> = queue::read(queue.as_bytes(), &QueueLimits::default())
        .collect::<Result<_, _>>()
        .expect("what was queued can be read");
    assert_eq!(encoded(&again), encoded(messages));

    let limits = QueueLimits {
        messages_max: 2,
        ..QueueLimits::default()
    };
    let parts: Vec<_> = queue.parts(&limits, false).collect();
    assert_eq!(parts.len(), messages.len().div_ceil(2));
    let joined: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
    assert_eq!(joined, queue.as_bytes());
}

fn encoded(messages: &[Message]) -> Vec<Vec<u8>> {
    messages.iter().map(Message::to_bytes).collect()
}

fn check_queue_error(error: &QueueError, bytes: &[u8]) {
    match error {
        QueueError::Message {
            index,
            offset,
            source,
        } => {
            assert_eq!(*offset, start(bytes, *index));
            message::check_message_error(source);
        }
        QueueError::Truncated { index, offset } => {
            assert_eq!(*offset, start(bytes, *index));
            check_error(error, &[]);
        }
        error => check_error(error, &[]),
    }
}

/// Where the prefix of the message with this index begins.
fn start(bytes: &[u8], index: usize) -> usize {
    (0..index).fold(0, |at, _| {
        let prefix = &bytes[at..at + 4];
        let len = prefix
            .iter()
            .rev()
            .fold(0, |len, byte| len << 8 | usize::from(*byte));
        at + 4 + len
    })
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let one = |message: Vec<u8>| wire::queued(&message);
    let mut hostile: Vec<_> = message::hostile(len).into_iter().map(one).collect();
    hostile.push(wire::repeat(
        &wire::queued(&wire::message("x", 1, &[])),
        len,
    ));
    hostile.push(vec![0; len]);
    hostile.push([&u32::MAX.to_le_bytes()[..], &vec![0; len]].concat());
    hostile
}
