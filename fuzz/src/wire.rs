//! Just enough of protobuf to write hostile bytes, apart from the code under test.

/// A varint in its shortest form.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A signed number as protobuf's `sint64`.
pub fn zigzag(number: i64) -> Vec<u8> {
    varint(((number << 1) ^ (number >> 63)).cast_unsigned())
}

/// Reads a varint, in any form that protobuf allows, from bytes that hold nothing else.
pub fn read_varint(bytes: &[u8]) -> u64 {
    let groups = bytes.iter().rev().map(|byte| u64::from(byte & 0x7f));
    groups.fold(0, |number, group| number << 7 | group)
}

/// Reads a number of protobuf's `sint64` from bytes that hold nothing else.
pub fn read_zigzag(bytes: &[u8]) -> i64 {
    let number = read_varint(bytes);
    let half = (number / 2).cast_signed();
    if number.is_multiple_of(2) {
        half
    } else {
        -half - 1
    }
}

/// The numbers of the fields that bytes consist of, or nothing if they are not fields.
pub fn tags(mut bytes: &[u8]) -> Option<Vec<u64>> {
    fn split_varint(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let end = bytes.iter().position(|byte| *byte < 0x80)?;
        Some(bytes.split_at(end + 1))
    }
    let mut tags = Vec::new();
    while !bytes.is_empty() {
        let (key, rest) = split_varint(bytes)?;
        let key = read_varint(key);
        let (content, rest) = split_varint(rest)?;
        bytes = match key & 7 {
            0 => rest,
            2 => rest.get(usize::try_from(read_varint(content)).ok()?..)?,
            _ => return None,
        };
        tags.push(key >> 3);
    }
    Some(tags)
}

/// The key of a field.
pub fn key(tag: u32, wire_type: u8) -> Vec<u8> {
    varint(u64::from(tag) << 3 | u64::from(wire_type))
}

/// A varint field.
pub fn number(tag: u32, number: u64) -> Vec<u8> {
    [key(tag, 0), varint(number)].concat()
}

/// A length-delimited field.
pub fn bytes(tag: u32, content: &[u8]) -> Vec<u8> {
    [key(tag, 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// A message of type `name` with an operation and further fields.
pub fn message(name: &str, op: u64, fields: &[u8]) -> Vec<u8> {
    [&bytes(1, name.as_bytes())[..], &number(3, op), fields].concat()
}

/// One message of a queue with its length in front.
pub fn queued(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_le_bytes()[..], message].concat()
}

/// As many copies as take about `len` bytes, at least one.
pub fn repeat(unit: &[u8], len: usize) -> Vec<u8> {
    unit.repeat((len / unit.len().max(1)).max(1))
}
