//! One target for each decoder. A new decoder gets a file here and a line in [`TARGETS`].

mod aggregate;
mod chain;
mod envelope;
mod frame;
mod ids;
mod key_file;
mod message;
mod metadata;
mod options;
mod queue;
mod row;
mod value;
mod wrapped_key;

pub use row::NULL_TAGS;
pub use value::KINDS;

/// What is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called on the command line; its seeds are in the folder of this name.
    pub name: &'static str,
    /// Feeds one input to the decoder; panics at a finding.
    pub run: fn(&[u8]),
    /// Inputs of about this length that a decoder could need too much time or memory for.
    pub hostile: fn(usize) -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident,)*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $name::run,
            hostile: $name::hostile,
        },)*];
    };
}

targets! {
    queue,
    message,
    options,
    row,
    value,
    envelope,
    frame,
    metadata,
    chain,
    wrapped_key,
    key_file,
    aggregate,
    ids,
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
