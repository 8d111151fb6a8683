use oplog_diesel::prelude::*;

diesel::table! {
    accounts (id) {
        id -> BigInt,
        owner -> Text,
    }
}

#[derive(Oplogged)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account", triggers = "re_read")]
struct Account {
    #[oplog(tag = 1)]
    id: i64,
    #[oplog(tag = 2)]
    owner: String,
}

fn main() {}
