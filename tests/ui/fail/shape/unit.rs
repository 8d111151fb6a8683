use oplog_diesel::prelude::*;

#[derive(Oplogged)]
#[oplog(type_name = "account", aggregate = "account")]
struct Account;

fn main() {}
