//! Compiles the programs of `fail/`, with one mistake in each, and compares what is said about it.
//!
//! The text of an error is the compiler's too, so this is done on one version of it.
//! After a change of a message: `TRYBUILD=overwrite cargo test -p oplog-ui-tests`, and read the
//! difference as the user would who made the mistake.

/// The compiler that wrote the `.stderr` files.
const RUSTC: &str = "rustc 1.95.";

#[test]
fn mistakes_are_explained() {
    let compiler = compiler();
    if compiler.starts_with(RUSTC) {
        trybuild::TestCases::new().compile_fail("fail/*/*.rs");
    } else {
        eprintln!("not compared: the texts in fail/ are those of {RUSTC}x, this is {compiler}");
    }
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("--version").output();
    let output = output.expect("cargo found a compiler to build this test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
