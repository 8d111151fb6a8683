use oplog_diesel::prelude::*;

#[derive(OplogValue)]
enum State {
    #[oplog(label = "")]
    Active,
}

fn main() {}
