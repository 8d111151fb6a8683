//! Where fuzzing starts: real data of every kind from our own encoders and from the original, and
//! edge cases by hand.
//!
//! They are committed as files below `seeds/`, so that what was written once is read for ever and a
//! finding can be kept beside them. `cargo run -p oplog-fuzz -- seeds` writes them; a test compares.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono::{NaiveDate, NaiveTime};
use oplog_core::{
    Action, Argument, ColumnUpdate, EncodedRow, Message, Metadata, NewValue, OnConflict, Options,
    Queue, Target, encode_row,
};

use crate::canary;
use crate::forge;
use crate::sample::{Sample, TAG_MAX};
use crate::targets::NULL_TAGS;
use crate::wire;

/// A seed: its target, its name and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// The folder with a folder of seeds for each target.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

/// The committed seeds of a target, in the order of their names.
///
/// # Errors
///
/// If the folder can't be read.
pub fn committed(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for entry in fs::read_dir(folder().join(target))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        seeds.push((name.into_owned(), fs::read(&path)?));
    }
    seeds.sort();
    Ok(seeds)
}

/// Writes [`all`] to [`folder`]. Files of other names stay: those are findings.
///
/// # Errors
///
/// If a file can't be written.
pub fn write() -> io::Result<usize> {
    let seeds = all();
    for (target, name, bytes) in &seeds {
        let folder = folder().join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(seeds.len())
}

/// All seeds that can be made. The same on every machine.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| seeds.push((target, name.to_owned(), bytes));

    for (name, queue) in originals() {
        add("queue", &format!("original-{name}"), queue);
    }
    for (name, bytes) in queues() {
        add("queue", name, bytes);
    }
    for (name, message) in messages() {
        add("message", name, message.to_bytes());
    }
    for (name, bytes) in odd_messages() {
        add("message", name, bytes);
    }
    for (name, bytes) in options() {
        add("options", name, bytes);
    }
    for (name, bytes) in rows() {
        add("row", name, bytes);
    }
    for (name, bytes) in values() {
        add("value", name, bytes);
    }
    for (name, bytes) in envelopes() {
        add("envelope", name, bytes.clone());
    }
    for (name, bytes) in odd_envelopes() {
        add("envelope", name, bytes);
    }
    for (name, bytes) in frames() {
        add("frame", name, bytes);
    }
    for (name, bytes) in metadata() {
        add("metadata", name, bytes);
    }
    for (name, bytes) in chains() {
        add("chain", name, bytes);
    }
    for (name, bytes) in wrapped_keys() {
        add("wrapped_key", name, bytes);
    }
    for (name, text) in key_files() {
        add("key_file", name, text.into_bytes());
    }
    for (name, text) in aggregates() {
        add("aggregate", name, text.into_bytes());
    }
    for (name, bytes) in ids() {
        add("ids", name, bytes);
    }
    seeds
}

fn before() -> Sample {
    Sample {
        id: -1,
        text: canary::TEXT.to_owned(),
        count: canary::NUMBER.unsigned_abs(),
        single: -0.0,
        double: Some(f64::NAN),
        blob: Some(canary::TEXT.as_bytes().to_vec()),
        day: NaiveDate::from_ymd_opt(2024, 2, 29),
        // A leap second.
        time: NaiveTime::from_hms_nano_opt(23, 59, 59, 1_999_999_999),
        moment: NaiveDate::MIN.and_time(NaiveTime::MIN),
        ..Sample::default()
    }
}

fn after() -> Sample {
    Sample {
        flag: true,
        blob: None,
        note: Some(canary::TEXT.to_owned()),
        moment: Default::default(),
        ..before()
    }
}

fn messages() -> Vec<(&'static str, Message)> {
    let update = Message::update(&before(), &after()).expect("something changed");
    let ordinal = Some(u32::MAX);
    vec![
        ("create", Message::create(&before())),
        ("create-defaults", Message::create(&Sample::default())),
        ("create-items", Message::create_items(&after())),
        ("delete", Message::delete(&before())),
        ("delete-items", Message::delete_items(&after())),
        ("update", update.clone()),
        ("update-with-ordinal", Message { ordinal, ..update }),
        (
            "options",
            Message {
                options: Some(every_option()),
                ..Message::create(&before())
            },
        ),
    ]
}

fn odd_messages() -> Vec<(&'static str, Vec<u8>)> {
    let masks = |a: &str, b: &str| {
        let mask = |tag, name: &str| wire::bytes(tag, &wire::bytes(1, name.as_bytes()));
        [mask(4, a), mask(5, b)].concat()
    };
    vec![
        ("empty", Vec::new()),
        ("no-type-name", wire::number(3, 1)),
        ("unknown-op", wire::message("x", 6, &[])),
        ("op-max", wire::message("x", u64::MAX, &[])),
        (
            "masks-intersect-control",
            wire::message("x", 2, &masks("a\n\u{1b}[2J", "A\n\u{1b}[2J")),
        ),
        ("type-name-control", wire::message("sample\r\n", 1, &[])),
        ("no-mask", wire::message("x", 2, &[])),
        ("masks-intersect", wire::message("x", 2, &masks("ab", "AB"))),
        (
            "long-varint",
            [&wire::bytes(1, b"x")[..], &[0x18, 0x81, 0x80, 0x00]].concat(),
        ),
        ("varint-too-large", [&[0x18][..], &[0xff; 10]].concat()),
        (
            "length-lies",
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x'],
        ),
        (
            "length-max",
            [&[0x12][..], &wire::varint(u64::MAX)].concat(),
        ),
        ("twice", wire::message("x", 1, &wire::number(3, 1))),
        ("unknown-field", wire::message("x", 1, &wire::number(20, 1))),
        ("group", wire::message("x", 1, &[0x33, 0x34])),
        (
            "other-order",
            [wire::number(3, 1), wire::bytes(1, b"sample")].concat(),
        ),
        (
            "tags-too-large",
            wire::message("x", 1, &wire::bytes(17, &[0xff; 5])),
        ),
        (
            "ordinal-too-large",
            wire::message("x", 1, &wire::number(19, 1 << 32)),
        ),
        (
            "canary-number",
            wire::message("x", 1, &wire::bytes(2, &[0x08, 0x80])),
        ),
        (
            "not-utf8",
            [&wire::bytes(1, &[0xff])[..], canary::TEXT.as_bytes()].concat(),
        ),
        (
            "canary-everywhere",
            wire::message(
                "sample",
                1,
                &[
                    wire::bytes(2, &wire::bytes(3, canary::TEXT.as_bytes())),
                    wire::bytes(16, canary::TEXT.as_bytes()),
                ]
                .concat(),
            ),
        ),
    ]
}

fn queues() -> Vec<(&'static str, Vec<u8>)> {
    let mut queue = Queue::new();
    for (_, message) in messages() {
        queue.push(&message).expect("a good message");
    }
    let all = queue.as_bytes().to_vec();
    let small = wire::queued(&wire::message("x", 1, &[]));
    vec![
        ("all", all.clone()),
        ("cut", all[..all.len() - 1].to_vec()),
        ("cut-prefix", [&small[..], &[1, 0, 0]].concat()),
        ("empty", Vec::new()),
        ("empty-message", vec![0; 4]),
        ("length-max", vec![0xff; 8]),
        ("length-one-more", [&[8, 0, 0, 0][..], &small[4..]].concat()),
        ("three", small.repeat(3)),
        (
            "good-then-bad",
            [&small[..], &[2, 0, 0, 0, 0x0a, 9]].concat(),
        ),
    ]
}

/// What the original wrote.
fn originals() -> Vec<(String, Vec<u8>)> {
    let json: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/vectors/original-queues.json"))
            .expect("the vectors are JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let queues = json.as_array().expect("a list of queues").iter();
    queues
        .map(|queue| (text(&queue["name"]), unhex(&text(&queue["queue_hex"]))))
        .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

fn every_option() -> Options {
    let text = || Argument::Text(canary::TEXT.to_owned());
    let object = vec![
        ("a".to_owned(), Argument::Null),
        (canary::TEXT.to_owned(), Argument::Bool(true)),
    ];
    let update = |column: &str, value| ColumnUpdate {
        column: column.to_owned(),
        value,
    };
    Options {
        version: Some(3),
        skip_vet: true,
        where_clause: format!("name = ? and other = '{}'", canary::TEXT),
        where_args: vec![
            text(),
            Argument::Number(canary::NUMBER as f64),
            Argument::List(vec![text(), Argument::Struct(object)]),
        ],
        on_conflict: Some(OnConflict {
            target: Target::Columns(vec!["id".to_owned(), "name".to_owned()]),
            action: Action::Update(vec![
                update("a", NewValue::Raw(text())),
                update(
                    "b",
                    NewValue::Expression {
                        sql: format!("'{}' || ?", canary::TEXT),
                        args: vec![text()],
                    },
                ),
                update(
                    "c",
                    NewValue::Column {
                        name: "c".to_owned(),
                        table: "excluded".to_owned(),
                    },
                ),
            ]),
        }),
    }
}

/// The bytes of options: what field 6 of a message holds.
fn encoded(options: Options) -> Vec<u8> {
    let message = |options| Message {
        options,
        type_name: Cow::Borrowed("x"),
        ..Message::create(&Sample::default())
    };
    let bytes = message(Some(options)).to_bytes();
    let without = message(None).to_bytes();
    // Behind the first fields, which both have, come key and length; behind them the other fields.
    let start = bytes
        .iter()
        .zip(&without)
        .take_while(|(a, b)| a == b)
        .count();
    let mut content = &bytes[start + 1..bytes.len() - (without.len() - start)];
    let length_len = content.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    content = &content[length_len..];
    content.to_vec()
}

fn options() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |depth| (0..depth).fold(Argument::Null, |inner, _| Argument::List(vec![inner]));
    let with_args = |where_args| Options {
        where_args,
        ..Options::default()
    };
    let conflict = |target, action| Options {
        on_conflict: Some(OnConflict { target, action }),
        ..Options::default()
    };
    let constraint = || Target::Constraint("c".to_owned());
    vec![
        ("none", Vec::new()),
        ("all", encoded(every_option())),
        ("depth-24", encoded(with_args(vec![nested(23)]))),
        ("depth-25", encoded(with_args(vec![nested(24)]))),
        ("depth-80", encoded(with_args(vec![nested(80)]))),
        ("nan", encoded(with_args(vec![Argument::Number(f64::NAN)]))),
        ("nothing", encoded(conflict(constraint(), Action::Nothing))),
        (
            "update-all",
            encoded(conflict(constraint(), Action::UpdateAll)),
        ),
        ("no-target", vec![0x2a, 0x03, 0x98, 0x03, 0x01]),
        ("no-action", vec![0x2a, 0x02, 0x52, 0x00]),
        ("no-value", vec![0x22, 0x00]),
        ("null-of-1", vec![0x22, 0x02, 0x08, 0x01]),
        ("cut", vec![0x2a]),
        (
            "unknown",
            [wire::number(99, 1), wire::bytes(3, canary::TEXT.as_bytes())].concat(),
        ),
        ("where-not-utf8", wire::bytes(3, &[0xff])),
        (
            "target-twice",
            wire::bytes(5, &[wire::bytes(10, b"a"), wire::bytes(10, b"b")].concat()),
        ),
    ]
}

fn rows() -> Vec<(&'static str, Vec<u8>)> {
    let stored = |row: &Sample| {
        let EncodedRow { bytes, null_tags } = encode_row(row);
        let nulls = null_tags.iter().map(|tag| {
            let index = NULL_TAGS.iter().position(|known| known == tag);
            index.expect("a tag of the model") as u8
        });
        let nulls: Vec<u8> = nulls.collect();
        [&[nulls.len() as u8][..], &nulls, &bytes].concat()
    };
    let plain = |row: &[u8]| [&[0][..], row].concat();
    vec![
        ("before", stored(&before())),
        ("after", stored(&after())),
        ("defaults", stored(&Sample::default())),
        ("empty", plain(&[])),
        (
            "all-null",
            [&[13][..], &[0, 1, 2, 4, 5, 6, 7, 8, 9, 12, 13, 3, 10]].concat(),
        ),
        ("unknown-null", vec![1, 11]),
        ("null-twice", vec![2, 0, 0]),
        ("null-and-value", vec![1, 0, 0x08, 0]),
        ("twice", plain(&[0x08, 0, 0x08, 0])),
        ("tag-0", plain(&[0x00])),
        ("unknown-tag", plain(&[0x60, 0])),
        (
            "reserved",
            plain(&[0x20, 5, 0x22, 1, 0xff, 0x25, 0, 0, 0, 0]),
        ),
        ("group", plain(&[0x0b])),
        (
            "wrong-type",
            plain(&wire::bytes(1, canary::TEXT.as_bytes())),
        ),
        ("bool-2", plain(&[0x18, 2])),
        ("long-varint", plain(&[0x08, 0x80, 0x80, 0])),
        ("length-lies", plain(&[0x12, 0xff, 0x7f, b'x'])),
        ("tag-max", plain(&wire::bytes(TAG_MAX, b""))),
        (
            "tag-too-large",
            plain(&wire::varint(u64::from(TAG_MAX + 1) << 3)),
        ),
        ("key-max", plain(&wire::varint(u64::MAX))),
        ("i32-canary", {
            let EncodedRow { bytes, .. } = encode_row(&before());
            // Without the column, which takes the first two bytes.
            plain(
                &[
                    wire::key(1, 0),
                    wire::zigzag(canary::NUMBER),
                    bytes[2..].to_vec(),
                ]
                .concat(),
            )
        }),
        ("i32-overflow", plain(&wire::number(1, 1 << 33))),
    ]
}

/// The first byte is the place in [`KINDS`](crate::targets::KINDS).
fn values() -> Vec<(&'static str, Vec<u8>)> {
    let of = |kind: u8, content: Vec<u8>| [&[kind][..], &content].concat();
    let text = |bytes: &[u8]| [wire::varint(bytes.len() as u64), bytes.to_vec()].concat();
    let day = 86_400_000_000_000;
    let moment = |seconds: i64, nanos: u64| {
        let fields = [
            wire::key(1, 0),
            wire::zigzag(seconds),
            wire::number(2, nanos),
        ]
        .concat();
        text(&fields)
    };
    vec![
        ("bool-0", of(0, vec![0])),
        ("bool-1", of(0, vec![1])),
        ("bool-2", of(0, vec![2])),
        ("sint-min", of(1, wire::zigzag(i64::MIN))),
        ("sint-max", of(1, wire::zigzag(i64::MAX))),
        ("sint-canary", of(1, wire::zigzag(canary::NUMBER))),
        ("sint-long", of(1, vec![0x80, 0x80, 0x00])),
        ("sint-cut", of(1, vec![0x80])),
        ("uint-max", of(2, wire::varint(u64::MAX))),
        ("uint-overflow", of(2, [vec![0xff; 9], vec![2]].concat())),
        ("uint-11-bytes", of(2, vec![0x80; 11])),
        ("f32-nan", of(3, 0x7fc0_dead_u32.to_le_bytes().to_vec())),
        (
            "f32-signalling",
            of(3, 0x7f80_0001_u32.to_le_bytes().to_vec()),
        ),
        ("f32-cut", of(3, vec![0; 3])),
        ("f64-zero", of(4, (-0.0f64).to_le_bytes().to_vec())),
        (
            "f64-nan",
            of(4, 0x7ff8_0000_dead_beef_u64.to_le_bytes().to_vec()),
        ),
        ("text", of(5, text(canary::TEXT.as_bytes()))),
        ("text-empty", of(5, text(b""))),
        ("text-nul", of(5, text(b"\0"))),
        ("text-not-utf8", of(5, text(b"\xed\xa0\x80"))),
        ("text-length-lies", of(5, vec![5, b'x'])),
        ("text-length-max", of(5, wire::varint(u64::MAX))),
        ("bytes", of(6, text(canary::TEXT.as_bytes()))),
        ("date-leap", of(7, wire::zigzag(19_782))),
        ("date-min", of(7, wire::zigzag(i64::MIN))),
        ("date-max", of(7, wire::zigzag(i64::MAX))),
        ("date-chrono-max", of(7, wire::zigzag(95_026_236))),
        ("time-leap", of(8, wire::varint(day + 37_859_000_000_005))),
        ("time-last", of(8, wire::varint(2 * day - 1))),
        ("time-beyond", of(8, wire::varint(2 * day))),
        ("moment-0", of(9, text(&[]))),
        ("moment-zeros", of(9, text(&[0x08, 0, 0x10, 0]))),
        ("moment-leap", of(9, moment(1_483_228_799, 1_500_000_000))),
        ("moment-min", of(9, moment(i64::MIN, 0))),
        ("moment-max", of(9, moment(i64::MAX, 1_999_999_999))),
        ("moment-beyond", of(9, moment(0, 2_000_000_000))),
        ("moment-twice", of(9, text(&[0x08, 0, 0x08, 0]))),
        ("moment-unknown", of(9, text(&[0x18, 0]))),
        ("moment-wrong-type", of(9, text(&[0x0d, 0, 0, 0, 0]))),
    ]
}

/// The only envelopes of the seeds that open: whatever else opens is a finding.
pub fn envelopes() -> &'static [(&'static str, Vec<u8>)] {
    static SEALED: OnceLock<Vec<(&'static str, Vec<u8>)>> = OnceLock::new();
    SEALED.get_or_init(|| {
        let queue = wire::queued(&Message::create(&before()).to_bytes());
        let group = Some(([0xc0; 16], 2));
        let sealed = |header, queue: &[u8]| forge::seal(header, &forge::frame(queue));
        let mut extreme = forge::header("e", Some(([0xff; 16], u16::MAX)));
        extreme[24..30].fill(0xff);
        extreme[30..38].copy_from_slice(&i64::MAX.to_le_bytes());
        extreme[38..46].copy_from_slice(&i64::MIN.to_le_bytes());
        vec![
            ("one", sealed(forge::header("sample", None), &queue)),
            ("group", sealed(forge::header("account:42", group), &queue)),
            ("empty", sealed(forge::header("a", None), &[])),
            (
                "control",
                sealed(forge::header("_oplog/control", None), &[]),
            ),
            (
                "name-255",
                sealed(forge::header(&"n".repeat(255), group), &[]),
            ),
            ("extreme", sealed(extreme, &[])),
        ]
    })
}

fn odd_envelopes() -> Vec<(&'static str, Vec<u8>)> {
    let changed = |name, at: usize, bytes: &[u8]| {
        let mut changed = forge::seal(forge::header("sample", Some(([1; 16], 2))), b"x");
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        (name, changed)
    };
    let good = forge::seal(forge::header("sample", None), b"");
    vec![
        ("nothing", Vec::new()),
        ("cut-header", good[..150].to_vec()),
        ("cut-tag", good[..good.len() - 1].to_vec()),
        ("appended", [&good[..], &[0]].concat()),
        changed("magic", 0, b"opl"),
        changed("version-2", 3, &[2]),
        changed("suite-0", 4, &[0]),
        changed("suite-clear", 4, &[0xf0]),
        changed("flag-group-missing", 5, &[0]),
        changed("flags", 5, &[0xff]),
        changed("header-length", 6, &[0xff, 0xff]),
        changed("sequence-0", 30, &[0; 8]),
        changed("sequence-negative", 30, &[0xff; 8]),
        changed("commitment", 150, &[0; 32]),
        changed("name-length-0", 182, &[0, 0]),
        changed("name-length-max", 182, &[0xff, 0xff]),
        changed("name-control", 184, b"\n\x1b"),
        changed("name-nul", 184, &[0]),
        changed("name-not-utf8", 184, &[0xff]),
        changed("parts-1", 206, &[1, 0]),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let queue = wire::queued(&Message::create(&before()).to_bytes());
    vec![
        ("queue", forge::frame(&queue)),
        ("empty-queue", forge::frame(&[])),
        ("padded", [forge::frame(&queue), vec![0; 7]].concat()),
        (
            "padded-with-content",
            [&forge::frame(&[])[..], canary::TEXT.as_bytes()].concat(),
        ),
        ("nothing", Vec::new()),
        ("cut", forge::frame(&[])[..9].to_vec()),
        ("version-2", [&[2][..], &forge::frame(&[])[1..]].concat()),
        (
            "codec-zstd",
            [&[1, 1][..], &forge::frame(&queue)[2..]].concat(),
        ),
        ("lengths-differ", vec![1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]),
        ("length-lies", vec![1, 0, 3, 0, 0, 0, 3, 0, 0, 0, 7, 8]),
        ("length-max", [&[1, 0][..], &[0xff; 8], &[7]].concat()),
    ]
}

fn metadata() -> Vec<(&'static str, Vec<u8>)> {
    let mut sample = Metadata::new();
    for value in ["root", "", canary::TEXT] {
        sample.push("actor", value).expect("good metadata");
    }
    sample.push_key("reviewed").expect("good metadata");
    sample
        .push_reserved("_oplog.unlogged", "vacuum")
        .expect("good metadata");
    let mut full = Metadata::new();
    for number in 0..64 {
        full.push("k", number.to_string()).expect("64 are allowed");
    }
    let sample = sample.to_bytes();
    let pair = |key: &[u8], ordinal: u32, value: Option<&[u8]>| {
        let len = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
        let value = match value {
            None => vec![0],
            Some(value) => [&[1][..], &len(value), value].concat(),
        };
        [&len(key)[..], key, &ordinal.to_le_bytes(), &value].concat()
    };
    let counted =
        |count: u32, pairs: &[Vec<u8>]| [&count.to_le_bytes()[..], &pairs.concat()].concat();
    let (a, b) = (pair(b"a", 0, Some(b"x")), pair(b"b", 0, None));
    vec![
        ("none", Metadata::new().to_bytes()),
        ("sample", sample.clone()),
        ("full", full.to_bytes()),
        ("nothing", Vec::new()),
        ("cut", sample[..sample.len() - 1].to_vec()),
        ("appended", [&sample[..], &[0]].concat()),
        ("count-65", counted(65, &[])),
        ("count-max", counted(u32::MAX, &[])),
        ("count-lies", counted(3, &[a.clone(), b.clone()])),
        (
            "key-length-max",
            counted(1, &[vec![0xff; 4], canary::TEXT.into()]),
        ),
        (
            "value-length-max",
            counted(1, &[a[..10].to_vec(), vec![0xff; 4]]),
        ),
        ("out-of-order", counted(2, &[b.clone(), a.clone()])),
        (
            "ordinal-gap",
            counted(2, &[a.clone(), pair(b"a", 2, Some(b"x"))]),
        ),
        (
            "ordinal-max",
            counted(1, &[pair(b"a", u32::MAX, Some(b"x"))]),
        ),
        (
            "with-and-without",
            counted(2, &[a.clone(), pair(b"a", 1, None)]),
        ),
        ("kind-2", counted(1, &[[&b[..b.len() - 1], &[2]].concat()])),
        ("empty-key", counted(1, &[pair(b"", 0, None)])),
        ("nul", counted(1, &[pair(b"a", 0, Some(b"\0"))])),
        (
            "not-utf8",
            counted(1, &[pair(b"\xff", 0, Some(canary::TEXT.as_bytes()))]),
        ),
        ("key-256", counted(1, &[pair(&[b'k'; 256], 0, None)])),
    ]
}

/// See the target for what the five bytes of an entry mean.
fn chains() -> Vec<(&'static str, Vec<u8>)> {
    let good = |aggregate, hash| [aggregate, 0, 0, 1, hash];
    vec![
        (
            "good",
            [good(0, 1), good(1, 2), good(0, 3), good(0, 4)].concat(),
        ),
        ("gap", [good(0, 1), [0, 2, 0, 1, 2], good(0, 3)].concat()),
        (
            "duplicate",
            [good(0, 1), [0, 0xff, 0, 1, 2], good(0, 3)].concat(),
        ),
        ("broken", [good(0, 1), [0, 0, 7, 1, 2], good(0, 3)].concat()),
        ("epoch", [[0, 0, 0, 2, 1], good(0, 2)].concat()),
        (
            "other-log",
            [good(0, 1), [4, 0, 0, 1, 2], good(0, 3)].concat(),
        ),
        ("resume", [[9, 5, 6, 1, 0], good(1, 3)].concat()),
        (
            "last-sequence",
            [[16, 3, 0, 1, 1], [16, 3, 0, 1, 2]].concat(),
        ),
    ]
}

fn wrapped_keys() -> Vec<(&'static str, Vec<u8>)> {
    let of = |place: u8, bytes: &[u8]| [&[place][..], bytes].concat();
    let (bound, wrapped) = (forge::bound(), forge::wrap(&forge::bound()));
    let mut changed = bound.clone();
    changed[63] ^= 1;
    let version = [&[2][..], &wrapped[1..]].concat();
    vec![
        ("wrapped", of(0, &wrapped)),
        ("nothing", of(0, &[])),
        ("version-2", of(0, &version)),
        ("cut", of(0, &wrapped[..104])),
        ("appended", of(0, &[&wrapped[..], &[0]].concat())),
        ("bound", of(1, &bound)),
        ("other-context", of(1, &changed)),
        ("key-only", of(1, &bound[..32])),
        ("empty", of(1, &[])),
        ("unbind", of(2, &bound)),
        ("unbind-cut", of(2, &bound[..63])),
        ("context", of(3, b"default|entry")),
        ("context-moved", of(3, b"defaulte|ntry")),
        ("context-empty", of(3, b"|")),
        ("context-256", of(3, &[b'x'; 256])),
    ]
}

fn key_files() -> Vec<(&'static str, String)> {
    let line = forge::kek().to_text().to_string();
    let other = oplog_core::Kek::from_bytes(forge::SECRET)
        .to_text()
        .to_string();
    let with_end = |end: &str| format!("{}{end}", &line[..line.len() - 1]);
    vec![
        ("one", line.clone()),
        ("one-line", format!("{line}\n")),
        ("two", format!("{line}\n{other}\n")),
        ("twice", format!("{line}\n{other}\n{line}\n")),
        ("nothing", String::new()),
        ("empty-line", "\n".to_owned()),
        ("empty-line-behind", format!("{line}\n\n")),
        ("carriage-return", format!("{line}\r\n")),
        ("space", format!(" {line}")),
        ("comment", format!("# {}\n{line}\n", canary::TEXT)),
        ("prefix-only", "oplog-kek-v1:".to_owned()),
        ("version-2", line.replace("v1", "v2")),
        ("padding", format!("{line}=")),
        ("unused-bits", with_end("9")),
        ("not-base64url", with_end("+")),
        ("not-ascii", format!("oplog-kek-v1:{}", canary::TEXT)),
    ]
}

fn aggregates() -> Vec<(&'static str, String)> {
    vec![
        ("nothing", String::new()),
        ("plain", "settings".to_owned()),
        ("root", "account:-42".to_owned()),
        ("reserved", "_oplog/control".to_owned()),
        ("almost-reserved", "_oplog".to_owned()),
        ("nul", "a\0b".to_owned()),
        ("length-255", "é".repeat(127) + "x"),
        ("length-256", "é".repeat(128)),
        ("canary", canary::TEXT.to_owned()),
    ]
}

fn ids() -> Vec<(&'static str, Vec<u8>)> {
    let hex = |len: usize| "aB".repeat(len).into_bytes();
    vec![
        ("nothing", Vec::new()),
        ("hex-16", hex(16)),
        ("hex-32", hex(32)),
        ("bytes-16", vec![0xff; 16]),
        ("bytes-32", vec![0; 32]),
        ("odd", hex(16)[..31].to_vec()),
        ("no-digit", [&hex(16)[..31], b"g"].concat()),
        ("not-ascii", "é".repeat(16).into_bytes()),
        ("canary", canary::TEXT.into()),
    ]
}
