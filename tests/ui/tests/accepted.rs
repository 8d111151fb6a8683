//! What the derives accept, and what they make of it.

#![deny(warnings)]
#![allow(missing_docs, clippy::unwrap_used)]

use diesel::prelude::*;
use oplog_diesel::core::{LogRow, RowValues, TypeDef, encode_row};
use oplog_diesel::prelude::*;
use oplog_diesel::{Kind, Value, ValueError};

/// Decodes what the row encodes to.
fn round_trip<R: LogRow>(row: &R) -> R {
    let encoded = encode_row(row);
    R::from_row(&RowValues::decode(R::DEF, &encoded.bytes, &encoded.null_tags).unwrap()).unwrap()
}

fn columns(def: &TypeDef) -> Vec<(u32, &str, Kind, bool, bool)> {
    let columns = def.columns.iter();
    columns
        .map(|c| (c.tag, c.name, c.kind, c.nullable, c.key))
        .collect()
}

mod schema {
    diesel::table! {
        accounts (id) {
            id -> BigInt,
            owner -> Text,
            balance -> BigInt,
            email -> Nullable<Text>,
        }
    }

    diesel::table! {
        members (team_id, number) {
            team_id -> BigInt,
            number -> SmallInt,
            #[sql_name = "type"]
            type_ -> Text,
            state -> Text,
            photo -> Nullable<Binary>,
            joined -> Timestamp,
            updated_at -> Timestamp,
        }
    }
}

use schema::{accounts, members};

#[derive(Queryable, Selectable, Identifiable, Oplogged, Debug, PartialEq)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account", root = id)]
struct Account {
    #[oplog(tag = 1)]
    id: i64,
    #[oplog(tag = 2)]
    owner: String,
    #[oplog(tag = 3)]
    balance: i64,
    #[oplog(tag = 4)]
    email: Option<String>,
}

fn alice() -> Account {
    Account {
        id: 42,
        owner: "Alice".into(),
        balance: -5,
        email: None,
    }
}

#[test]
fn a_model() {
    let def = Account::DEF;
    assert_eq!(
        (def.type_name, def.aggregate, def.root),
        ("account", "account", Some(0))
    );
    assert_eq!(def.rust_name, "accepted::Account");
    assert_eq!((def.type_id)(), std::any::TypeId::of::<Account>());
    assert_eq!((def.reserved, def.partial), (&[][..], false));
    assert_eq!(
        columns(def),
        [
            (1, "id", Kind::Sint, false, true),
            (2, "owner", Kind::Text, false, false),
            (3, "balance", Kind::Sint, false, false),
            (4, "email", Kind::Text, true, false),
        ]
    );
    assert_eq!(alice().aggregate().to_string(), "account:42");
    assert_eq!(alice().value(2), Value::Sint(-5));
    assert_eq!(alice().value(3), Value::Null);
    assert_eq!(round_trip(&alice()), alice());
}

#[test]
#[should_panic(expected = "no column with the index 4")]
fn no_such_column() {
    alice().value(4);
}

mod declared {
    use oplog_diesel::prelude::*;

    use super::schema::accounts;

    #[derive(Oplogged)]
    #[diesel(table_name = accounts)]
    #[oplog(type_name = "loud_account", aggregate = "account", partial)]
    #[oplog(triggers = "reread", cascade = "log")]
    pub struct Loud {
        #[oplog(tag = 1)]
        pub id: i64,
    }

    #[derive(Oplogged)]
    #[diesel(table_name = accounts)]
    #[oplog(
        type_name = "quiet_account",
        aggregate = "account",
        partial,
        triggers = "ignore"
    )]
    pub struct Quiet {
        #[oplog(tag = 1)]
        pub id: i64,
    }
}

#[test]
fn what_the_database_does_is_declared() {
    use oplog_diesel::{Cascade, Model, Triggers};

    let of = |model: Model| (model.triggers(), model.cascade());
    assert_eq!(
        of(Model::of::<Account>()),
        (Triggers::Undeclared, Cascade::Undeclared)
    );
    assert_eq!(
        of(Model::of::<declared::Loud>()),
        (Triggers::Reread, Cascade::Log)
    );
    assert_eq!(
        of(Model::of::<declared::Quiet>()),
        (Triggers::Ignore, Cascade::Undeclared)
    );
    assert_eq!(
        (declared::Loud { id: 1 }.id, declared::Quiet { id: 2 }.id),
        (1, 2)
    );
}

#[derive(OplogValue, Debug, PartialEq, Clone, Copy)]
struct TeamId(i64);

#[derive(OplogValue, Debug, PartialEq)]
struct Photo {
    bytes: Option<Vec<u8>>,
}

#[derive(OplogValue, Debug, PartialEq)]
enum State {
    #[oplog(label = "active")]
    Active,
    #[oplog(label = "on leave")]
    Away {},
    #[oplog(label = "gone")]
    r#Left(),
}

// A tuple struct, every spelling of a column's name, keys in several attributes.
#[derive(Oplogged, Debug, PartialEq)]
#[diesel(table_name = schema::members, primary_key(team_id, number))]
#[diesel(check_for_backend(diesel::sqlite::Sqlite), treat_none_as_null = true)]
#[oplog(type_name = "member", reserved(3, 4))]
#[oplog(root = 2, aggregate = "team", unlogged_columns(updated_at))]
struct Member(
    #[oplog(tag = 16)]
    #[diesel(column_name = "type_")]
    String,
    #[oplog(tag = 2, default = 1 + 1)]
    #[diesel(column_name = number, skip_update)]
    i16,
    #[oplog(tag = 0x1)]
    #[diesel(column_name = r#team_id, sql_type = diesel::sql_types::Nullable<diesel::sql_types::BigInt>)]
    TeamId,
    #[oplog(tag = 536_870_911)]
    #[diesel(column_name = "state")]
    State,
    #[oplog(tag = 9, default)]
    #[diesel(column_name = photo)]
    Option<Vec<u8>>,
    #[oplog(default = chrono::NaiveDateTime::default())]
    #[oplog(tag = 8)]
    #[diesel(column_name = joined)]
    chrono::NaiveDateTime,
);

#[test]
fn a_tuple_struct() {
    let def = Member::DEF;
    assert_eq!(
        (def.type_name, def.aggregate, def.root),
        ("member", "team", Some(2))
    );
    assert_eq!((def.reserved, def.partial), (&[3, 4][..], false));
    assert_eq!(
        columns(def),
        [
            (16, "type", Kind::Text, false, false),
            (2, "number", Kind::Sint, false, true),
            (1, "team_id", Kind::Sint, false, true),
            (536_870_911, "state", Kind::Text, false, false),
            (9, "photo", Kind::Bytes, true, false),
            (8, "joined", Kind::Timestamp, false, false),
        ]
    );
    let member = Member(
        "x".into(),
        7,
        TeamId(3),
        State::Away {},
        Some(vec![0]),
        Default::default(),
    );
    assert_eq!(member.aggregate().to_string(), "team:3");
    assert_eq!(round_trip(&member), member);
}

#[test]
fn absent_columns_have_their_defaults() {
    use oplog_diesel::core::encode_columns;
    let stored = [
        (0, Value::Text("x".into())),
        (2, Value::Sint(3)),
        (3, Value::Text("gone".into())),
    ];
    let encoded = encode_columns(Member::DEF, stored);
    let row = RowValues::decode(Member::DEF, &encoded.bytes, &encoded.null_tags).unwrap();
    let member = Member(
        "x".into(),
        2,
        TeamId(3),
        State::r#Left(),
        None,
        Default::default(),
    );
    assert_eq!(Member::from_row(&row).unwrap(), member);
}

#[test]
fn values() {
    assert_eq!(
        (TeamId::KIND, TeamId::NULLABLE, TeamId::ROOT),
        (Kind::Sint, false, true)
    );
    assert_eq!(
        (Photo::KIND, Photo::NULLABLE, Photo::ROOT),
        (Kind::Bytes, true, false)
    );
    assert_eq!(
        (State::KIND, State::NULLABLE, State::ROOT),
        (Kind::Text, false, false)
    );

    let photo = Photo {
        bytes: Some(vec![1]),
    };
    assert_eq!(photo.to_value(), Value::Bytes([1][..].into()));
    assert_eq!(Photo::from_value(Value::Null), Ok(Photo { bytes: None }));
    assert_eq!(State::Away {}.to_value(), Value::Text("on leave".into()));
    for state in [State::Active, State::Away {}, State::r#Left()] {
        assert_eq!(State::from_value(state.to_value()).as_ref(), Ok(&state));
    }
    assert_eq!(
        State::from_value(Value::Text("Active".into())),
        Err(ValueError::Label { type_name: "State" })
    );
    assert_eq!(
        State::from_value(Value::Sint(0)),
        Err(ValueError::Kind {
            expected: "text",
            found: "sint"
        })
    );
    assert!(TeamId::from_value(Value::Bool(true)).is_err());
}

#[derive(Oplogged)]
#[diesel(table_name = members, primary_key(team_id, number))]
#[oplog(type_name = "member_number", aggregate = "team", partial)]
#[allow(dead_code)]
struct MemberNumber {
    #[oplog(tag = 1)]
    team_id: i64,
    #[oplog(tag = 2)]
    number: i16,
}

#[test]
fn a_partial_model() {
    assert!(MemberNumber::DEF.partial);
    assert_eq!(
        MemberNumber {
            team_id: 1,
            number: 2
        }
        .aggregate()
        .to_string(),
        "team"
    );
}

#[test]
fn diesels_default_table_in_a_function() {
    diesel::table! {
        o_auth_tokens (id) {
            id -> Integer,
            #[sql_name = "type"]
            type_ -> Bool,
        }
    }

    #[derive(Queryable, Selectable, Oplogged, Debug, PartialEq)]
    #[oplog(type_name = "token", aggregate = "token", root = r#type)]
    struct OAuthToken {
        #[oplog(tag = 1)]
        id: i32,
        #[oplog(tag = 2)]
        #[diesel(column_name = type_)]
        r#type: bool,
    }

    let token = OAuthToken {
        id: 1,
        r#type: true,
    };
    assert_eq!(token.aggregate().to_string(), "token:true");
    assert_eq!(round_trip(&token), token);
}

macro_rules! model {
    ($name:ident, $table:path, $type_name:literal, $($field:ident: $ty:ty = $tag:literal),*) => {
        #[derive(Oplogged, Debug, PartialEq)]
        #[diesel(table_name = $table)]
        #[oplog(type_name = $type_name, aggregate = $type_name, root = owner)]
        struct $name { $(#[oplog(tag = $tag)] $field: $ty),* }
    };
}

model!(Made, schema::accounts, "made", id: i64 = 1, owner: String = 2, balance: i64 = 3, email: Option<String> = 4);

#[test]
fn a_model_that_a_macro_makes() {
    let made = Made {
        id: 1,
        owner: "a:b".into(),
        balance: 2,
        email: Some(String::new()),
    };
    assert_eq!(made.aggregate().to_string(), "made:a:b");
    assert_eq!(round_trip(&made), made);
}
