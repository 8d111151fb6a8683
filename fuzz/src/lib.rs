//! Fuzz targets for everything in `oplog-core` that reads bytes or text which somebody may have
//! tampered with.
//!
//! A target is a plain function of bytes that panics at a finding. The same functions run three
//! ways: over the committed seeds and some mutations of them in `cargo test`, under libFuzzer's
//! coverage guidance in `cargo xtask fuzz`, and over single files to reproduce a finding.
//!
//! Every target asks for more than "no panic": what decodes is written again to the same meaning
//! and, where `FORMAT.md` promises one form, to the same bytes; memory is bounded by a small
//! multiple of the input ([`bound`]); errors do not repeat content ([`canary`]); and nothing opens
//! that was not sealed.
#![forbid(unsafe_code)]

pub mod bound;
pub mod canary;
pub mod forge;
pub mod mutate;
pub mod sample;
pub mod seeds;
pub mod targets;
pub mod wire;

pub use targets::{TARGETS, Target};
