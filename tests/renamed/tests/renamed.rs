//! `oplog-diesel` under another name, and a table of sixty columns.

#![deny(warnings)]
#![allow(missing_docs, clippy::unwrap_used)]

use renamed::core::{LogRow, RowValues, encode_row};
use renamed::{OplogValue as _, Oplogged as _};

diesel::table! {
    accounts (id) {
        id -> BigInt,
        state -> Text,
    }
}

#[derive(renamed::OplogValue, Debug, PartialEq)]
#[oplog(crate = "::renamed")]
struct Number(i64);

#[derive(renamed::OplogValue, Debug, PartialEq)]
#[oplog(crate = "::renamed")]
enum State {
    #[oplog(label = "active")]
    Active,
}

#[derive(renamed::Oplogged, Debug, PartialEq)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account", root = id, crate = "::renamed")]
struct Account {
    #[oplog(tag = 1)]
    id: Number,
    #[oplog(tag = 2, default = State::Active)]
    state: State,
}

/// A path that begins in this crate.
mod facade {
    pub use renamed as log;
}

#[derive(renamed::Oplogged)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account_number", aggregate = "account", partial)]
#[oplog(crate = "crate::facade::log")]
struct AccountNumber {
    #[oplog(tag = 1)]
    id: i64,
}

fn round_trip<R: LogRow>(row: &R) -> R {
    let encoded = encode_row(row);
    R::from_row(&RowValues::decode(R::DEF, &encoded.bytes, &encoded.null_tags).unwrap()).unwrap()
}

#[test]
fn another_name() {
    let account = Account {
        id: Number(7),
        state: State::Active,
    };
    assert_eq!(account.aggregate().to_string(), "account:7");
    assert_eq!(round_trip(&account), account);
    assert_eq!(
        State::Active.to_value(),
        renamed::Value::Text("active".into())
    );
    assert_eq!(round_trip(&AccountNumber { id: 7 }).id, 7);
}

macro_rules! wide {
    ($($column:ident = $tag:literal,)*) => {
        diesel::table! {
            wides (c01) {
                $($column -> BigInt,)*
            }
        }

        #[derive(renamed::Oplogged, Debug, PartialEq, Default)]
        #[diesel(table_name = wides, primary_key(c01))]
        #[oplog(type_name = "wide", aggregate = "wide", root = c60, crate = "::renamed")]
        struct Wide {
            $(#[oplog(tag = $tag)] $column: i64,)*
        }
    };
}

wide! {
    c01 = 1, c02 = 2, c03 = 3, c04 = 4, c05 = 5, c06 = 6, c07 = 7, c08 = 8, c09 = 9, c10 = 10,
    c11 = 11, c12 = 12, c13 = 13, c14 = 14, c15 = 15, c16 = 16, c17 = 17, c18 = 18, c19 = 19,
    c20 = 20, c21 = 21, c22 = 22, c23 = 23, c24 = 24, c25 = 25, c26 = 26, c27 = 27, c28 = 28,
    c29 = 29, c30 = 30, c31 = 31, c32 = 32, c33 = 33, c34 = 34, c35 = 35, c36 = 36, c37 = 37,
    c38 = 38, c39 = 39, c40 = 40, c41 = 41, c42 = 42, c43 = 43, c44 = 44, c45 = 45, c46 = 46,
    c47 = 47, c48 = 48, c49 = 49, c50 = 50, c51 = 51, c52 = 52, c53 = 53, c54 = 54, c55 = 55,
    c56 = 56, c57 = 57, c58 = 58, c59 = 59, c60 = 60,
}

#[test]
fn sixty_columns() {
    let wide = Wide {
        c01: 1,
        c59: -59,
        c60: 60,
        ..Wide::default()
    };
    assert_eq!(Wide::DEF.columns.len(), 60);
    assert_eq!(Wide::DEF.columns[59].name, "c60");
    assert_eq!(wide.aggregate().to_string(), "wide:60");
    assert_eq!(round_trip(&wide), wide);
}
