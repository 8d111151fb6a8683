use oplog_diesel::prelude::*;

#[derive(OplogValue)]
struct Owner(#[oplog(tag = 1)] String);

fn main() {}
