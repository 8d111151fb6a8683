//! Queues that the original wrote decode, and encode to the same bytes again.
//!
//! Each file `tests/vectors/original-queues*.json` is a list of queues with the messages that went
//! in and the bytes that came out.
#![allow(clippy::unwrap_used)]

use std::{borrow::Cow, fs, path::Path};

use oplog_core::{
    Action, Argument, ColumnUpdate, Message, NewValue, OnConflict, Op, Options, Queue, QueueLimits,
    Target, queue,
};
use serde_json::Value as Json;

#[test]
fn queues_of_the_original_come_back_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("original-queues") || !name.ends_with(".json") {
            continue;
        }
        let queues: Json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for stored in array(&queues) {
            check(stored);
            count += 1;
        }
    }
    assert!(count > 0, "no queue found");
}

fn check(stored: &Json) {
    let name = text(&stored["name"]);
    let bytes = unhex(text(&stored["queue_hex"]));
    let expected: Vec<Message> = array(&stored["messages"]).iter().map(message).collect();

    let found: Vec<Message> = queue::read(&bytes, &QueueLimits::default())
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(&expected) {
        // `Debug` hides content, so what differs would not show.
        assert_eq!(found.type_name, expected.type_name, "{name}");
        assert_eq!(found.op, expected.op, "{name}");
        assert_eq!(found.field_mask, expected.field_mask, "{name}");
        assert_eq!(found.null_mask, expected.null_mask, "{name}");
        assert_eq!(found.value, expected.value, "{name}");
        assert_eq!(found.options, expected.options, "{name}");
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(encode(&found), bytes, "{name}, from the decoded messages");
    assert_eq!(encode(&expected), bytes, "{name}, from the description");
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut queue = Queue::new();
    for message in messages {
        queue.push(message).unwrap();
    }
    assert_eq!(queue.part_count(&QueueLimits::default(), true), 1);
    queue.as_bytes().to_vec()
}

fn message(json: &Json) -> Message {
    Message {
        type_name: Cow::Owned(text(&json["type_name"]).to_owned()),
        op: Op::from_number(json["operation_number"].as_u64().unwrap()).unwrap(),
        value: unhex(text(&json["value_hex"])),
        field_mask: texts(&json["field_mask"])
            .into_iter()
            .map(Cow::Owned)
            .collect(),
        null_mask: texts(&json["null_mask"])
            .into_iter()
            .map(Cow::Owned)
            .collect(),
        options: given(&json["options"]).map(options),
        previous: None,
        null_tags: Vec::new(),
        previous_null_tags: Vec::new(),
        ordinal: None,
    }
}

fn options(json: &Json) -> Options {
    only(
        json,
        &[
            "with_version",
            "with_skip_vet_for_write",
            "with_where_clause",
            "with_where_clause_args",
            "with_on_conflict",
        ],
    );
    Options {
        version: given(&json["with_version"]).map(|it| it.as_u64().unwrap().try_into().unwrap()),
        skip_vet: given(&json["with_skip_vet_for_write"]).is_some_and(|it| it.as_bool().unwrap()),
        where_clause: given(&json["with_where_clause"])
            .map_or_else(String::new, |it| text(it).to_owned()),
        where_args: arguments(&json["with_where_clause_args"]),
        on_conflict: given(&json["with_on_conflict"]).map(on_conflict),
    }
}

fn on_conflict(json: &Json) -> OnConflict {
    let target = match given(&json["constraint"]) {
        Some(name) => Target::Constraint(text(name).to_owned()),
        None => Target::Columns(texts(&json["columns"]["names"])),
    };
    let action = if json["do_nothing"] == true {
        Action::Nothing
    } else if json["update_all"] == true {
        Action::UpdateAll
    } else {
        let columns = array(&json["column_values"]["values"]);
        Action::Update(columns.iter().map(column_update).collect())
    };
    OnConflict { target, action }
}

fn column_update(json: &Json) -> ColumnUpdate {
    let value = if let Some(column) = given(&json["column"]) {
        NewValue::Column {
            name: text(&column["name"]).to_owned(),
            table: text(&column["table"]).to_owned(),
        }
    } else if let Some(expression) = given(&json["expr_value"]) {
        NewValue::Expression {
            sql: text(&expression["sql"]).to_owned(),
            args: arguments(&expression["args"]),
        }
    } else {
        // `null` is a value here.
        NewValue::Raw(argument(json.get("raw").unwrap()))
    };
    ColumnUpdate {
        column: text(&json["name"]).to_owned(),
        value,
    }
}

fn arguments(json: &Json) -> Vec<Argument> {
    given(json).map_or_else(Vec::new, |json| array(json).iter().map(argument).collect())
}

fn argument(json: &Json) -> Argument {
    match json {
        Json::Null => Argument::Null,
        Json::Bool(value) => Argument::Bool(*value),
        Json::Number(number) => Argument::Number(number.as_f64().unwrap()),
        Json::String(text) => Argument::Text(text.clone()),
        Json::Array(values) => Argument::List(values.iter().map(argument).collect()),
        Json::Object(fields) => Argument::Struct(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), argument(value)))
                .collect(),
        ),
    }
}

/// An option that this test does not know would go unchecked.
fn only(json: &Json, known: &[&str]) {
    for name in json.as_object().unwrap().keys() {
        assert!(known.contains(&name.as_str()), "unknown option {name}");
    }
}

fn given(json: &Json) -> Option<&Json> {
    (!json.is_null()).then_some(json)
}

fn array(json: &Json) -> &[Json] {
    json.as_array().unwrap()
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap()
}

fn texts(json: &Json) -> Vec<String> {
    array(json).iter().map(|it| text(it).to_owned()).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii());
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}
