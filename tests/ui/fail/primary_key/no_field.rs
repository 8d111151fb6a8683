use oplog_diesel::prelude::*;

diesel::table! {
    accounts (number) {
        number -> BigInt,
        owner -> Text,
    }
}

#[derive(Oplogged)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account")]
struct Account {
    #[oplog(tag = 1)]
    number: i64,
    #[oplog(tag = 2)]
    owner: String,
}

fn main() {}
