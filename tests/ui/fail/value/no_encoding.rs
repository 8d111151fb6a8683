use oplog_diesel::prelude::*;

struct Name(String);

#[derive(OplogValue)]
struct Owner(Name);

fn main() {}
