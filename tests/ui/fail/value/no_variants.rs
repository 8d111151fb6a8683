use oplog_diesel::prelude::*;

#[derive(OplogValue)]
enum Never {}

fn main() {}
