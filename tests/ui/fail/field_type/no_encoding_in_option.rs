use oplog_diesel::prelude::*;

diesel::table! {
    accounts (id) {
        id -> BigInt,
        owner -> Nullable<Text>,
    }
}

struct Owner(String);

#[derive(Oplogged)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account")]
struct Account {
    #[oplog(tag = 1)]
    id: i64,
    #[oplog(tag = 2)]
    owner: Option<Owner>,
}

fn main() {}
