//! The test vectors of `FORMAT.md`, read from the document itself, so that it can't go stale.
#![allow(clippy::unwrap_used, missing_docs)]

use std::any::TypeId;

use oplog_core::{
    ColumnDef, DataKey, Envelope, EnvelopeLimits, Group, Kek, KeyId, KeyWrapper, Kind, LogId,
    LogRow, Message, Metadata, OplogValue, QueueLimits, RowError, RowValues, TxnId, TypeDef, Value,
    WrapContext, encode_row, entry_hash, genesis, queue,
};

#[derive(Debug, PartialEq)]
struct Account {
    id: i64,
    owner: String,
    balance: i64,
    email: Option<String>,
}

impl LogRow for Account {
    const DEF: &'static TypeDef = &TypeDef {
        type_name: "account",
        rust_name: "Account",
        type_id: TypeId::of::<Account>,
        aggregate: "account",
        root: Some(0),
        columns: &[
            column(1, "id", Kind::Sint, false),
            column(2, "owner", Kind::Text, false),
            column(3, "balance", Kind::Sint, false),
            column(4, "email", Kind::Text, true),
        ],
        reserved: &[],
        partial: false,
        lock_first: false,
    };

    fn value(&self, column: usize) -> Value<'_> {
        match column {
            0 => self.id.to_value(),
            1 => self.owner.to_value(),
            2 => self.balance.to_value(),
            _ => self.email.to_value(),
        }
    }

    fn from_row(row: &RowValues<'_>) -> Result<Self, RowError> {
        Ok(Self {
            id: row.take(0)?,
            owner: row.take(1)?,
            balance: row.take(2)?,
            email: row.take(3)?,
        })
    }
}

const fn column(tag: u32, name: &'static str, kind: Kind, nullable: bool) -> ColumnDef {
    ColumnDef {
        tag,
        name,
        kind,
        nullable,
        key: tag == 1,
    }
}

/// The code blocks of the last section, without the line breaks inside of values.
fn blocks() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../FORMAT.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Test vectors\n").unwrap();
    section
        .split("```")
        .skip(1)
        .step_by(2)
        .map(|block| {
            block
                .trim_start_matches("text\n")
                .replace("\n           ", "")
        })
        .collect()
}

/// The values under a label, in order.
fn labelled<'a>(block: &'a str, label: &str) -> Vec<&'a str> {
    let values = block.lines().filter_map(|line| line.strip_prefix(label));
    values.map(str::trim).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn count_up<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first + index as u8)
}

fn log_id() -> LogId {
    LogId::from_bytes(count_up(0x10))
}

fn key() -> DataKey {
    DataKey::from_bytes(KeyId::from_bytes(count_up(0xa0)), count_up(0))
}

#[test]
fn rows_and_messages() {
    let blocks = blocks();
    let before = Account {
        id: 42,
        owner: "Alice".into(),
        balance: -5,
        email: None,
    };
    let row = encode_row(&before);
    let (bytes, nulls) = blocks[0].split_once("NULL tags:").unwrap();
    assert_eq!(row.bytes, unhex(bytes.strip_prefix("row").unwrap()));
    assert_eq!(row.null_tags, [nulls.trim().parse::<u32>().unwrap()]);

    let create = Message::create(&before);
    assert_eq!(create.to_bytes(), unhex(&blocks[1]));
    assert_eq!(create.row::<Account>().unwrap(), before);

    let after = Account {
        email: Some("a@b.c".into()),
        ..before
    };
    let mut update = Message::update(
        &Account {
            email: None,
            owner: "Alice".into(),
            ..after
        },
        &after,
    )
    .unwrap();
    update.ordinal = Some(0);
    assert_eq!(update.to_bytes(), unhex(&blocks[2]));
    assert_eq!(Message::from_bytes(&unhex(&blocks[2])).unwrap(), update);
}

#[test]
fn queue_and_metadata() {
    let blocks = blocks();
    let bytes = unhex(&blocks[3]);
    let messages: Vec<_> = queue::read(&bytes, &QueueLimits::default())
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].type_name, "car");

    let mut metadata = Metadata::new();
    metadata.push("actor", "root").unwrap();
    metadata.push("actor", "").unwrap();
    metadata.push_key("reviewed").unwrap();
    let bytes = labelled(&blocks[4], "bytes");
    let hashes = labelled(&blocks[4], "hash");
    for (index, metadata) in [Metadata::new(), metadata].into_iter().enumerate() {
        assert_eq!(metadata.to_bytes(), unhex(bytes[index]));
        assert_eq!(
            Metadata::from_bytes(&unhex(bytes[index])).unwrap(),
            metadata
        );
        assert_eq!(metadata.hash().to_string(), hashes[index]);
    }
}

#[test]
fn envelopes_and_hashes() {
    let blocks = blocks();
    let block = &blocks[5];
    assert_eq!(
        genesis(&log_id(), "iam_user").to_string(),
        labelled(block, "genesis")[0]
    );
    let bytes = unhex(labelled(block, "envelope")[0]);
    let envelope = Envelope::parse(&bytes, &EnvelopeLimits::default()).unwrap();
    assert_eq!(envelope.header().aggregate, "iam_user");
    assert_eq!(
        entry_hash(&bytes).to_string(),
        labelled(block, "entry hash")[0]
    );
    assert!(envelope.open(&key()).is_err());

    let block = &blocks[6];
    let mut previous = genesis(&log_id(), "car");
    assert_eq!(previous.to_string(), labelled(block, "genesis")[0]);
    let group = Group {
        txn_id: TxnId::from_bytes(count_up(0xc0)),
        parts: 2,
    };
    let metadata_hashes = labelled(&blocks[4], "hash");
    let envelopes = labelled(block, "envelope");
    for (index, (epoch, group)) in [(1, None), (3, Some(group))].into_iter().enumerate() {
        let bytes = unhex(envelopes[index]);
        let envelope = Envelope::parse(&bytes, &EnvelopeLimits::default()).unwrap();
        let header = envelope.header();
        assert_eq!(header.log_id, log_id());
        assert_eq!(
            (header.epoch, header.sequence, header.schema),
            (epoch, index as u64 + 1, 2)
        );
        assert_eq!(
            (header.created_us, header.group),
            (1_700_000_000_000_000, group)
        );
        assert_eq!(header.previous, previous);
        assert_eq!(header.metadata_hash.to_string(), metadata_hashes[index]);
        assert_eq!(*envelope.open(&key()).unwrap(), unhex(&blocks[3]));
        previous = envelope.entry_hash();
        assert_eq!(previous.to_string(), labelled(block, "entry hash")[index]);
    }
}

#[test]
fn keys() {
    let blocks = blocks();
    let block = &blocks[7];
    let kek = Kek::from_bytes(count_up(0x80));
    assert_eq!(*kek.to_text(), labelled(block, "text")[0]);
    assert_eq!(kek.id().as_str(), labelled(block, "kek_id")[0]);
    let context = WrapContext {
        log_id: log_id(),
        key_id: *key().id(),
        scope: "default",
        purpose: "entry",
        version: 1,
    };
    assert_eq!(
        context.to_bytes().unwrap(),
        unhex(labelled(block, "context")[0])
    );
    let bound = context.bind(&key()).unwrap();
    assert_eq!(bound[32..], unhex(labelled(block, "H(context)")[0]));
    let opened = kek
        .unwrap(&context, &unhex(labelled(block, "wrapped")[0]))
        .unwrap();
    assert_eq!(opened.expose_secret(), key().expose_secret());
}
