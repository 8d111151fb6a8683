//! Holds decoders to what they may allocate.

/// What a decoder may allocate whatever it is given, in bytes: the first blocks of a few vectors
/// and the text of an error.
const BASE: usize = 4096;

/// Runs a decoder and checks that the memory it held at any one moment, its result included, stays
/// below `per_byte` bytes for each byte of input and a fixed base.
///
/// # Panics
///
/// If it held more: a number from the bytes decided how much was allocated, or a few bytes of input
/// become many in memory.
pub fn bounded<T>(len: usize, per_byte: usize, decode: impl FnOnce() -> T) -> T {
    let mut result = None;
    let used = allocation_counter::measure(|| result = Some(decode()));
    let max = BASE + per_byte * len;
    assert!(
        used.bytes_max <= max as u64,
        "{} bytes of memory for {len} bytes of input, at most {max} are allowed",
        used.bytes_max
    );
    result.expect("the closure has run")
}
