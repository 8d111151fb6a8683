//! `src/proto.rs` is what the proto file generates, so that users need no protoc.
//!
//! After a change of the proto file: `OPLOG_REGEN=1 cargo test -p oplog-core --test proto_is_current`.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path};

#[test]
fn proto_is_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = "oplog/v1/oplog.proto";
    let descriptors = protox::compile([file], [here.join("proto")]).unwrap();
    // All files, since ours refers to Google's; only ours is wanted.
    let module = |package: &str| prost_build::Module::from_protobuf_package_name(package);
    let modules = descriptors
        .file
        .into_iter()
        .map(|descriptor| (module(descriptor.package()), descriptor))
        .collect();
    let generated = prost_build::Config::new()
        .extern_path(".google.protobuf.Value", "crate::proto_value::Value")
        .generate(modules)
        .unwrap()
        .remove(&module("oplog.v1"))
        .unwrap();

    let target = here.join("src/proto.rs");
    if env::var_os("OPLOG_REGEN").is_some() {
        fs::write(&target, &generated).unwrap();
    }
    let committed = fs::read_to_string(&target).unwrap();
    assert!(
        committed == generated,
        "src/proto.rs differs from what {file} generates; run this test with OPLOG_REGEN=1"
    );
}
