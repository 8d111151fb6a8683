//! Small changes to inputs, for machines and tests without coverage guidance. The same seed gives
//! the same inputs on every machine.

/// SplitMix64: eight lines, and good enough to choose what to break.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// Numbers that sit at the edges of lengths, counts and varints.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
    u64::MAX >> 1,
    u64::MAX,
];

impl Random {
    /// A sequence that depends on the seed alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`, 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            end => (self.bits() % end as u64) as usize,
        }
    }
}

/// One to four changes to one of the seeds.
///
/// # Panics
///
/// If there are no seeds.
pub fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        change(&mut bytes, seeds, random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let len = bytes.len();
    let at = random.below(len + 1);
    let range = at..at + random.below((len - at).min(32) + 1);
    match random.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.bits() as u8;
            }
        }
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(range)),
        4 => {
            let copy = bytes[range].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            let to = from + random.below((other.len() - from).min(64) + 1);
            bytes.splice(range, other[from..to].iter().copied());
        }
        6 => {
            let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)];
            let end = (at + width).min(len);
            bytes.splice(at..end, edge[..width].iter().copied());
        }
        7 => {
            let edge = crate::wire::varint(EDGES[random.below(EDGES.len())]);
            let end = (at + 1).min(len);
            bytes.splice(at..end, edge);
        }
        // What follows a zero byte often moves when one is put in.
        _ => bytes.insert(at, if random.below(2) == 0 { 0 } else { 0xff }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let seeds = [b"one".to_vec(), Vec::new(), vec![7; 100]];
        let inputs = |seed| {
            let mut random = Random::new(seed);
            (0..1000)
                .map(|_| mutate(&seeds, &mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let different: std::collections::BTreeSet<_> = inputs(1).into_iter().collect();
        assert!(different.len() > 500, "{}", different.len());
    }
}
