//! The part of `oplog-diesel` that knows no database: what a logged change looks like in bytes,
//! and what makes a log of such changes encrypted, ordered and tamper-evident.
//!
//! Most programs depend on `oplog-diesel`, which drives all of this on a Diesel connection and
//! re-exports what its users meet. This crate alone is for tools that read a log without Diesel.
//! It does no I/O, except that it draws random numbers from the operating system.
//!
//! From a row to stored bytes and back:
//!
//! 1. A [`LogRow`] gives its columns as [`Value`]s; [`TypeDef`] says under which tags they are
//!    stored.
//! 2. A [`Message`] is one create, update or delete of such a row; a [`Queue`] holds the messages
//!    of one entry in order.
//! 3. [`seal`] encrypts the queue under a [`DataKey`] and binds it to its [`Header`]:
//!    log, aggregate, sequence and the hash of the entry before.
//! 4. Reading goes backwards: [`Envelope::parse`], [`ChainCheck`], [`Envelope::open`],
//!    [`queue::read`], [`Message::row`]. A [`TypeCatalog`] finds the model of a stored type name.
//!
//! Every stored byte is described in `FORMAT.md`. All decoders are strict, return typed errors,
//! never panic on input and never allocate a size that untrusted bytes merely claim.
#![forbid(unsafe_code)]

// In reading order, from values to the protocol.
mod type_def;
mod value;
mod value_impls;

mod message;
mod options;
pub mod queue;
mod row;

mod aggregate;
mod catalog;
mod metadata;
mod name;

mod chain;
mod envelope;
mod hash;

mod kek;
mod key;
mod rng;

mod transaction;

#[rustfmt::skip]
#[allow(
    dead_code,
    clippy::all,
    reason = "generated; outside tests only the options are read and written through it"
)]
mod proto;
mod proto_value;
mod wire;

pub use aggregate::{AGGREGATE_LEN_MAX, Aggregate, AggregateError};
pub use catalog::{CatalogError, TypeCatalog, Typed};
pub use chain::{ChainCheck, ChainError, Head};
pub use envelope::{
    ENVELOPE_LEN_HARD_MAX, ENVELOPE_LEN_MAX, Envelope, EnvelopeError, EnvelopeLimits, Group,
    Header, NewHeader, OpenError, SEQUENCE_MAX, SealError, Suite, seal,
};
pub use hash::{Hash, IdError, KeyId, LogId, TxnId, entry_hash, genesis};
pub use kek::{KEY_NAME_LEN_MAX, Kek, KekId, KekTextError, KeyWrapError, KeyWrapper, WrapContext};
pub use key::{DataKey, KEY_LEN, KeyError, Keyring};
pub use message::{Message, MessageError, Op};
pub use metadata::{
    METADATA_KEY_LEN_MAX, METADATA_LEN_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_LEN_MAX, Metadata,
    MetadataError,
};
pub use name::{NAME_SHOWN_MAX, short_name};
pub use options::{
    ARGUMENT_DEPTH_MAX, Action, Argument, ColumnUpdate, NewValue, OnConflict, Options,
    OptionsError, Target,
};
pub use queue::{MESSAGES_MAX, QUEUE_LEN_MAX, Queue, QueueError, QueueLimits};
pub use rng::RngError;
pub use row::{EncodedRow, RowError, RowValues, encode_columns, encode_row};
pub use transaction::{
    Closing, Mark, Receipt, RecordError, Recorder, SCHEMA, SealedEntry, Ticket, TicketMode,
    TransactionLimits, UNLOGGED_KEY,
};
pub use type_def::{ColumnDef, LogRow, TypeDef};
pub use value::{Kind, OplogValue, Value, ValueError};
pub use wire::WireError;
