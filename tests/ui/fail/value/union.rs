use oplog_diesel::prelude::*;

#[derive(OplogValue)]
union Bits {
    float: f64,
    bits: u64,
}

fn main() {}
