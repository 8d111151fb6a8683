//! The byte form of an entry's messages: each a `u32` little-endian length and that many bytes.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::message::{Encoding, ordinal_len, put_ordinal};
use crate::{Message, MessageError};

/// The most messages that one entry holds by default.
pub const MESSAGES_MAX: usize = 10_000;

/// The most bytes of messages that one entry holds by default: 16 MiB less 1024 bytes, which is
/// room for what the envelope adds.
pub const QUEUE_LEN_MAX: usize = 16 * 1024 * 1024 - 1024;

/// Bytes in front of each message.
const PREFIX_LEN: usize = 4;

/// Room that every message leaves for its ordinal: 2 bytes of key and at most 5 of varint.
const ORDINAL_LEN_MAX: usize = 7;

/// How much one entry may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// The most messages, at least 1.
    pub messages_max: usize,
    /// The most bytes, length prefixes included.
    pub queue_len_max: usize,
}

/// [`MESSAGES_MAX`] and [`QUEUE_LEN_MAX`].
impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            messages_max: MESSAGES_MAX,
            queue_len_max: QUEUE_LEN_MAX,
        }
    }
}

/// The messages of one transaction for one aggregate, encoded, in order of their statements.
///
/// It may outgrow a single entry; [`parts`](Self::parts) cuts it. Its memory is wiped when it is
/// dropped and whenever it moves. `Debug` shows counts only.
#[derive(Default)]
pub struct Queue {
    /// Every message with its length prefix, without the ordinals kept aside.
    bytes: Zeroizing<Vec<u8>>,
    slots: Vec<Slot>,
}

/// One message in the queue.
#[derive(Clone, Copy)]
struct Slot {
    /// Where the message ends.
    end: usize,
    /// Kept aside: whether it is written is known only when the transaction ends.
    ordinal: Option<u32>,
}

/// Why a message can't be queued, or bytes are no queue. Carries no content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// One message alone exceeds what an entry holds.
    #[error("the message is {len} bytes long, at most {max} fit into an entry")]
    MessageTooLong {
        /// Its length in bytes, without prefix and ordinal.
        len: usize,
        /// The largest length.
        max: usize,
    },
    /// The bytes exceed what an entry holds.
    #[error("the queue is {len} bytes long, at most {max} are allowed")]
    TooLong {
        /// Their number.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// There are more messages than an entry holds.
    #[error("the queue holds more than {max} messages")]
    TooManyMessages {
        /// The limit.
        max: usize,
    },
    /// The bytes end inside a message or its length, or a length exceeds what is left.
    #[error("the queue ends inside message {index}, which begins at byte {offset}")]
    Truncated {
        /// The message, counted from 0.
        index: usize,
        /// Where its length prefix begins.
        offset: usize,
    },
    /// A message does not decode, or can't be encoded so that it would.
    #[error("message {index} at byte {offset} of the queue is invalid")]
    Message {
        /// The message, counted from 0.
        index: usize,
        /// Where its length prefix begins.
        offset: usize,
        /// What is wrong with it.
        source: MessageError,
    },
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message as it is, with its own ordinal if it has one.
    ///
    /// # Errors
    ///
    /// [`QueueError::MessageTooLong`] if it can't fit into an entry of default limits,
    /// [`QueueError::Message`] if it could not be read again: it has no type name, is an update
    /// without masks or with intersecting ones, or its arguments nest too deep. The queue is
    /// unchanged.
    pub fn push(&mut self, message: &Message) -> Result<(), QueueError> {
        self.append(message, message.ordinal, None)
    }

    /// Appends a message with its place in the transaction, counted from 0.
    ///
    /// The ordinal is kept aside. It reaches the bytes only if [`parts`](Self::parts) is asked
    /// for it, once the transaction turned out to have several entries. It takes the place of the
    /// message's own.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_with_ordinal(&mut self, message: &Message, ordinal: u32) -> Result<(), QueueError> {
        self.append(message, None, Some(ordinal))
    }

    fn append(
        &mut self,
        message: &Message,
        written: Option<u32>,
        kept_aside: Option<u32>,
    ) -> Result<(), QueueError> {
        message.check().map_err(|source| QueueError::Message {
            index: self.len(),
            offset: self.bytes.len(),
            source,
        })?;
        let encoding = Encoding::new(message, written);
        let max = QUEUE_LEN_MAX - PREFIX_LEN - ORDINAL_LEN_MAX;
        let prefix = match u32::try_from(encoding.len) {
            Ok(prefix) if encoding.len <= max => prefix,
            _ => {
                return Err(QueueError::MessageTooLong {
                    len: encoding.len,
                    max,
                });
            }
        };
        self.reserve(PREFIX_LEN + encoding.len);
        self.bytes.extend_from_slice(&prefix.to_le_bytes());
        encoding.write(&mut self.bytes);
        self.slots.push(Slot {
            end: self.bytes.len(),
            ordinal: kept_aside,
        });
        Ok(())
    }

    // `Vec::reserve` would leave the old bytes behind in freed memory.
    fn reserve(&mut self, additional: usize) {
        let needed = self.bytes.len() + additional;
        if needed > self.bytes.capacity() {
            let capacity = needed.max(self.bytes.capacity() * 2);
            let mut grown = Zeroizing::new(Vec::with_capacity(capacity));
            grown.extend_from_slice(&self.bytes);
            self.bytes = grown;
        }
    }

    /// How many messages the queue holds.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The message with this index, counted from 0, without the ordinal kept aside.
    ///
    /// # Errors
    ///
    /// [`QueueError::Message`] if it does not decode, which can't happen to one that was pushed.
    pub fn get(&self, index: usize) -> Result<Option<Message>, QueueError> {
        if index >= self.slots.len() {
            return Ok(None);
        }
        let range = self.range(index);
        let offset = range.start;
        Message::from_bytes(&self.bytes[range][PREFIX_LEN..])
            .map(Some)
            .map_err(|source| QueueError::Message {
                index,
                offset,
                source,
            })
    }

    /// The ordinal that is kept aside for the message with this index.
    pub(crate) fn ordinal(&self, index: usize) -> Option<u32> {
        self.slots.get(index)?.ordinal
    }

    /// Whether the queue holds no message.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Length in bytes of all messages with their prefixes, without the ordinals kept aside.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// All messages without the ordinals kept aside: what a queue of one part is sealed from,
    /// without the copy that [`parts`](Self::parts) makes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Removes all but the first messages, for a roll-back to a savepoint. The memory of the
    /// removed ones is wiped at the latest when the queue is dropped.
    ///
    /// Does nothing if there are no more messages than these.
    pub fn truncate(&mut self, messages: usize) {
        if messages < self.slots.len() {
            self.slots.truncate(messages);
            let end = self.slots.last().map_or(0, |slot| slot.end);
            self.bytes.truncate(end);
        }
    }

    /// Cuts the queue into the bytes of consecutive entries, each within the limits, all but the
    /// last filled as far as messages allow. An empty queue has no part.
    ///
    /// With ordinals, each message that was pushed with one gets it. A single message that
    /// exceeds limits smaller than the default ones makes a part of its own.
    pub fn parts(
        &self,
        limits: &QueueLimits,
        with_ordinals: bool,
    ) -> impl Iterator<Item = Zeroizing<Vec<u8>>> {
        self.cuts(limits, with_ordinals)
            .map(move |cut| self.part(cut, with_ordinals))
    }

    /// How many entries [`parts`](Self::parts) yields.
    pub fn part_count(&self, limits: &QueueLimits, with_ordinals: bool) -> usize {
        self.cuts(limits, with_ordinals).count()
    }

    /// The slots of each part and its length in bytes.
    fn cuts(
        &self,
        limits: &QueueLimits,
        with_ordinals: bool,
    ) -> impl Iterator<Item = (Range<usize>, usize)> {
        let limits = *limits;
        let mut first = 0;
        std::iter::from_fn(move || {
            let (mut last, mut len) = (first, 0);
            while last < self.slots.len() {
                let message_len = self.range(last).len() + self.ordinal_len(last, with_ordinals);
                let is_full =
                    last - first >= limits.messages_max || len + message_len > limits.queue_len_max;
                // The first message is always taken, or the queue would never end.
                if is_full && last > first {
                    break;
                }
                len += message_len;
                last += 1;
            }
            let cut = first..last;
            first = last;
            (!cut.is_empty()).then_some((cut, len))
        })
    }

    fn part(&self, (cut, len): (Range<usize>, usize), with_ordinals: bool) -> Zeroizing<Vec<u8>> {
        let mut part = Zeroizing::new(Vec::with_capacity(len));
        for index in cut {
            let message = &self.bytes[self.range(index)];
            let Some(ordinal) = self.slots[index].ordinal.filter(|_| with_ordinals) else {
                part.extend_from_slice(message);
                continue;
            };
            // Can't overflow: `append` leaves room for the ordinal below a limit of 16 MiB.
            let len = (message.len() - PREFIX_LEN + ordinal_len(ordinal)) as u32;
            part.extend_from_slice(&len.to_le_bytes());
            part.extend_from_slice(&message[PREFIX_LEN..]);
            put_ordinal(&mut part, ordinal);
        }
        part
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = match index.checked_sub(1) {
            Some(before) => self.slots[before].end,
            None => 0,
        };
        start..self.slots[index].end
    }

    fn ordinal_len(&self, index: usize, with_ordinals: bool) -> usize {
        let ordinal = self.slots[index].ordinal.filter(|_| with_ordinals);
        ordinal.map_or(0, ordinal_len)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("messages", &self.len())
            .field("byte_len", &self.byte_len())
            .finish()
    }
}

/// Reads the messages of an entry in order.
///
/// Nothing is allocated for a length or a count that the bytes claim. After an error the iterator
/// ends. No bytes are no messages.
///
/// # Examples
///
/// ```
/// use oplog_core::{Op, QueueLimits, queue};
///
/// // One message, written by the original.
/// let bytes = b"\x17\0\0\0\x0a\x03car\x12\x0a\x08\x02\x22\x04Jeep\x28\x19\x18\x01\x22\0\x2a\0";
/// for message in queue::read(bytes, &QueueLimits::default()) {
///     let message = message?;
///     assert_eq!((&*message.type_name, message.op), ("car", Op::Create));
/// }
/// # Ok::<(), oplog_core::QueueError>(())
/// ```
pub fn read<'a>(bytes: &'a [u8], limits: &QueueLimits) -> Messages<'a> {
    Messages {
        bytes,
        offset: 0,
        index: 0,
        limits: *limits,
    }
}

/// The messages of an entry, see [`read`]. `Debug` shows the position only.
#[derive(Clone)]
pub struct Messages<'a> {
    /// Set to empty after an error.
    bytes: &'a [u8],
    offset: usize,
    index: usize,
    limits: QueueLimits,
}

impl Messages<'_> {
    fn read_next(&mut self) -> Result<Message, QueueError> {
        let (index, offset) = (self.index, self.offset);
        let max = self.limits.queue_len_max;
        if self.bytes.len() > max {
            return Err(QueueError::TooLong {
                len: self.bytes.len(),
                max,
            });
        }
        if index >= self.limits.messages_max {
            return Err(QueueError::TooManyMessages {
                max: self.limits.messages_max,
            });
        }
        let truncated = QueueError::Truncated { index, offset };
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX_LEN>() else {
            return Err(truncated);
        };
        let message = usize::try_from(u32::from_le_bytes(*prefix))
            .ok()
            .and_then(|len| rest.get(..len));
        let Some(message) = message else {
            return Err(truncated);
        };
        self.offset += PREFIX_LEN + message.len();
        self.index += 1;
        Message::from_bytes(message).map_err(|source| QueueError::Message {
            index,
            offset,
            source,
        })
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<Message, QueueError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.bytes.len() {
            return None;
        }
        let message = self.read_next();
        if message.is_err() {
            self.bytes = &[];
            self.offset = 0;
        }
        Some(message)
    }
}

impl FusedIterator for Messages<'_> {}

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("index", &self.index)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::messages;
    use crate::row::tests::{Sample, sample};
    use crate::wire::WireError;
    use crate::{Argument, Op, Options, OptionsError};

    fn message(text: &str) -> Message {
        Message::create(&Sample {
            text: text.to_owned(),
            ..sample()
        })
    }

    fn queue(texts: &[&str]) -> Queue {
        let mut queue = Queue::new();
        for (ordinal, text) in (0..).zip(texts) {
            queue.push_with_ordinal(&message(text), ordinal).unwrap();
        }
        queue
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<Message>, QueueError> {
        read(bytes, &QueueLimits::default()).collect()
    }

    fn limits(messages_max: usize, queue_len_max: usize) -> QueueLimits {
        QueueLimits {
            messages_max,
            queue_len_max,
        }
    }

    #[test]
    fn messages_come_back_in_order() {
        let queue = queue(&["a", "b", "c"]);
        assert_eq!((queue.len(), queue.is_empty()), (3, false));
        let expected = vec![message("a"), message("b"), message("c")];
        assert_eq!(read_all(queue.as_bytes()), Ok(expected.clone()));
        assert_eq!(queue.byte_len(), queue.as_bytes().len());

        let parts: Vec<_> = queue.parts(&QueueLimits::default(), false).collect();
        assert_eq!(parts.len(), 1);
        assert_eq!(read_all(&parts[0]), Ok(expected));
    }

    #[test]
    fn an_empty_queue_has_no_part() {
        let queue = Queue::new();
        assert_eq!(queue.part_count(&QueueLimits::default(), true), 0);
        assert_eq!(queue.parts(&QueueLimits::default(), true).count(), 0);
        assert_eq!(read_all(queue.as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn a_savepoint_takes_messages_back() {
        let mut queue = queue(&["a", "b", "c"]);
        queue.truncate(4);
        assert_eq!(queue.len(), 3);
        queue.truncate(1);
        queue.push(&message("d")).unwrap();
        assert_eq!(
            read_all(queue.as_bytes()),
            Ok(vec![message("a"), message("d")])
        );
        queue.truncate(0);
        assert!(queue.is_empty() && queue.as_bytes().is_empty());
    }

    #[test]
    fn parts_keep_the_limits() {
        let queue = queue(&["a", "bb", "ccc", "dddd", "e"]);
        let one = PREFIX_LEN + message("a").encoded_len() + ordinal_len(0);
        for (limits, with_ordinals, expected) in [
            (limits(2, QUEUE_LEN_MAX), false, &[2, 2, 1][..]),
            (limits(5, QUEUE_LEN_MAX), true, &[5]),
            (limits(10, 2 * one + 1), true, &[2, 1, 1, 1]),
            (limits(10, 2 * one), true, &[1, 1, 1, 1, 1]),
            (limits(10, one - 1), true, &[1, 1, 1, 1, 1]),
            (limits(0, 0), false, &[1, 1, 1, 1, 1]),
        ] {
            let parts: Vec<_> = queue.parts(&limits, with_ordinals).collect();
            let messages: Vec<_> = parts.iter().map(|part| read_all(part).unwrap()).collect();
            let counts: Vec<_> = messages.iter().map(Vec::len).collect();
            assert_eq!(counts, expected, "{limits:?}");
            assert_eq!(queue.part_count(&limits, with_ordinals), expected.len());
            let ordinals = messages.concat().into_iter().map(|message| message.ordinal);
            assert!(ordinals.eq((0..5).map(|ordinal| with_ordinals.then_some(ordinal))));
        }
    }

    #[test]
    fn what_can_not_be_read_again_is_not_queued() {
        let mut queue = Queue::new();
        let mut long = message("");
        let max = QUEUE_LEN_MAX - PREFIX_LEN - ORDINAL_LEN_MAX;
        long.value = vec![0; max];
        let len = long.encoded_len();
        assert_eq!(
            queue.push(&long),
            Err(QueueError::MessageTooLong { len, max })
        );
        long.value = vec![0; max - (len - max)];
        assert_eq!(long.encoded_len(), max);
        assert_eq!(queue.push_with_ordinal(&long, u32::MAX), Ok(()));
        let parts: Vec<_> = queue.parts(&QueueLimits::default(), true).collect();
        assert_eq!(parts[0].len(), QUEUE_LEN_MAX);
        assert_eq!(read_all(&parts[0]).unwrap()[0].ordinal, Some(u32::MAX));

        let mut deep = message("");
        let nested = (0..100).fold(Argument::Null, |inner, _| Argument::List(vec![inner]));
        deep.options = Some(Options {
            where_args: vec![nested],
            ..Options::default()
        });
        let error = queue.push(&deep).unwrap_err();
        let source = OptionsError::TooDeep { max: 24 };
        assert!(
            matches!(error, QueueError::Message { index: 1, source: MessageError::Options { source: found }, .. } if found == source)
        );

        let mut no_mask = message("");
        no_mask.op = Op::Update;
        for (bad, source) in [
            (no_mask, MessageError::NoMask),
            (
                Message {
                    type_name: "".into(),
                    ..message("")
                },
                MessageError::NoTypeName,
            ),
        ] {
            let found = match queue.push(&bad) {
                Err(QueueError::Message { source, .. }) => source,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, source);
        }
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn what_is_no_queue_is_refused() {
        let whole = queue(&["a", "b"]).as_bytes().to_vec();
        let second = whole.len() / 2;
        for cut in 1..whole.len() {
            let (index, offset) = if cut < second { (0, 0) } else { (1, second) };
            if cut != second {
                let expected = Err(QueueError::Truncated { index, offset });
                assert_eq!(read_all(&whole[..cut]), expected, "{cut}");
            }
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(
            read_all(&longer),
            Err(QueueError::Truncated {
                index: 2,
                offset: whole.len()
            })
        );
        let huge = [0xff; 8];
        assert_eq!(
            read_all(&huge),
            Err(QueueError::Truncated {
                index: 0,
                offset: 0
            })
        );
        let bad = [2, 0, 0, 0, 0x0a, 9];
        assert_eq!(
            read_all(&bad),
            Err(QueueError::Message {
                index: 0,
                offset: 0,
                source: MessageError::Malformed {
                    offset: 0,
                    source: WireError::Truncated
                }
            })
        );

        let mut few = read(&whole, &limits(1, QUEUE_LEN_MAX));
        assert_eq!(few.next(), Some(Ok(message("a"))));
        assert_eq!(
            few.next(),
            Some(Err(QueueError::TooManyMessages { max: 1 }))
        );
        assert_eq!(few.next(), None, "an error ends it");
        let (len, max) = (whole.len(), whole.len() - 1);
        let mut short = read(&whole, &limits(2, max));
        assert_eq!(short.next(), Some(Err(QueueError::TooLong { len, max })));
        assert_eq!(short.next(), None);
    }

    #[test]
    fn debug_hides_content() {
        let queue = queue(&["secret"]);
        let shown = format!(
            "{queue:?} {:?}",
            read(queue.as_bytes(), &QueueLimits::default())
        );
        assert!(
            !shown.contains("secret") && !shown.contains("115, 101"),
            "{shown}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn queues_round_trip(messages in vec(messages(), 0..6), messages_max in 1usize..4) {
            let mut queue = Queue::new();
            for message in &messages {
                queue.push(message).unwrap();
            }
            prop_assert_eq!(read_all(queue.as_bytes()), Ok(messages.clone()));
            let limits = limits(messages_max, 1 << 20);
            let parts: Vec<_> = queue.parts(&limits, false).collect();
            prop_assert_eq!(parts.len(), messages.len().div_ceil(messages_max));
            let joined: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            prop_assert_eq!(joined, queue.as_bytes());
        }

        #[test]
        fn an_ordinal_kept_aside_ends_up_in_the_message(message in messages(), ordinal: u32) {
            let mut queue = Queue::new();
            queue.push_with_ordinal(&message, ordinal).unwrap();
            let parts: Vec<_> = queue.parts(&QueueLimits::default(), true).collect();
            let expected = Message { ordinal: Some(ordinal), ..message };
            prop_assert_eq!(&parts[0][PREFIX_LEN..], expected.to_bytes());
            prop_assert_eq!(read_all(&parts[0]), Ok(vec![expected]));
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = read_all(&bytes);
        }

        #[test]
        fn changed_bytes_do_not_panic(messages in vec(messages(), 1..4), at: usize, bit in 0..8) {
            let mut queue = Queue::new();
            for message in &messages {
                queue.push(message).unwrap();
            }
            let mut bytes = queue.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1u8 << bit;
            let _ = read_all(&bytes);
        }
    }
}
