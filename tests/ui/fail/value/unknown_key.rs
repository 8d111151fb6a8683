use oplog_diesel::prelude::*;

#[derive(OplogValue)]
enum State {
    #[oplog(lable = "active")]
    Active,
}

fn main() {}
