use oplog_diesel::prelude::*;

#[derive(OplogValue)]
struct Id<T>(T);

fn main() {}
