//! Damage to a file, by a seed: blind, and by somebody who knows how protobuf is laid out.

use std::ops::Range;

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn range(&mut self, len: usize) -> Range<usize> {
        let start = self.below(len + 1);
        let most = if self.below(2) == 0 { 16 } else { len };
        let end = start + self.below(most.min(len - start) + 1);
        start..end
    }
}

/// A damaged copy of the file: one to four changes, most of them to the structure.
pub(crate) fn mutant(file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..random.pick(&[1, 1, 1, 2, 2, 4]) {
        bytes = if random.below(4) == 0 { blind(bytes, random) } else { aware(&bytes, random, 0) };
        // A file that has grown beyond twice its size tells nothing new.
        bytes.truncate(2 * file.len());
    }
    bytes
}

fn blind(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    let position = random.below(bytes.len());
    match random.below(7) {
        0 => bytes[position] ^= 1 << random.below(8),
        1 => bytes[position] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        2 => bytes.truncate(position),
        3 => drop(bytes.drain(random.range(bytes.len()))),
        4 => {
            let copy = bytes[random.range(bytes.len())].to_vec();
            bytes.splice(position..position, copy);
        }
        5 => {
            let range = random.range(bytes.len());
            bytes[range].fill_with(|| random.next().to_le_bytes()[0]);
        }
        _ => {
            let from = random.range(bytes.len());
            let len = from.len().min(bytes.len() - position);
            bytes.copy_within(from.start..from.start + len, position);
        }
    }
    bytes
}

/// One field of a message: where its tag begins, where its content lies, where it ends.
#[derive(Clone)]
struct Field {
    number: u64,
    wire_type: u64,
    start: usize,
    content: Range<usize>,
}

const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    31,
    127,
    1 << 16,
    1 << 31,
    (1 << 31) - 1,
    1 << 32,
    1 << 40,
    1 << 61,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
    u64::MAX - 1,
    u64::MAX - (1 << 31),
];

/// Goes down to a field of some depth and changes it, correcting the lengths around it.
fn aware(message: &[u8], random: &mut Random, depth: usize) -> Vec<u8> {
    let Some(fields) = fields(message).filter(|fields| !fields.is_empty()) else {
        return blind(message.to_vec(), random);
    };
    let idx = random.below(fields.len());
    let field = &fields[idx];
    let content = &message[field.content.clone()];
    let nested = field.wire_type == 2 && self::fields(content).is_some_and(|inner| !inner.is_empty());
    let replaced = if nested && random.below(if depth == 0 { 24 } else { 5 }) != 0 {
        encoded(field.number, 2, &aware(content, random, depth + 1))
    } else {
        changed(message, &fields, idx, random)
    };
    [&message[..field.start], &replaced, &message[field.content.end..]].concat()
}

/// What stands in the place of a field, tag and all.
fn changed(message: &[u8], fields: &[Field], idx: usize, random: &mut Random) -> Vec<u8> {
    let field = &fields[idx];
    let content = &message[field.content.clone()];
    let whole = &message[field.start..field.content.end];
    let other = &fields[random.below(fields.len())];
    let others = &message[other.content.clone()];
    match random.below(12) {
        0 => Vec::new(),
        1 => [whole, whole].concat(),
        2 => [&message[other.start..other.content.end], whole].concat(),
        3 if other.wire_type == field.wire_type => encoded(field.number, field.wire_type, others),
        4 => encoded(random.pick(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 20, 21, 25]), field.wire_type, content),
        5 => encoded(field.number, random.pick(&[0, 1, 2, 3, 4, 5]), content),
        6 if field.wire_type == 2 => {
            let inner = (0..random.below(8)).fold(message.to_vec(), |inner, _| encoded(field.number, 2, &inner));
            encoded(field.number, 2, &inner)
        }
        7 if field.wire_type == 2 => whole.repeat(random.pick(&[3, 10, 100, 1000]).min(1 + 100_000 / whole.len())),
        _ => match field.wire_type {
            0 => [varint(field.number << 3), varint(random.pick(NUMBERS))].concat(),
            2 => length_delimited(field, content, random),
            wire_type => {
                let extremes = [0, u64::MAX, f64::NAN.to_bits(), f64::INFINITY.to_bits(), 0x7f80_0000_ff80_0000];
                let number = random.pick(&extremes).to_le_bytes();
                encoded(field.number, wire_type, &number[..content.len().min(8)])
            }
        },
    }
}

fn length_delimited(field: &Field, content: &[u8], random: &mut Random) -> Vec<u8> {
    match random.below(6) {
        0 => encoded(field.number, 2, &[]),
        1 => encoded(field.number, 2, &content[..random.below(content.len() + 1)]),
        2 => [varint(field.number << 3 | 2), varint(random.pick(NUMBERS)), content.to_vec()].concat(),
        3 => encoded(field.number, 2, &varint(random.pick(NUMBERS)).repeat(1 + random.below(8))),
        4 => encoded(field.number, 2, random.pick(TEXTS).as_bytes()),
        _ => encoded(field.number, 2, &blind(content.to_vec(), random)),
    }
}

/// Names of operators and attributes whose rules read numbers.
const TEXTS: &[&str] = &[
    "",
    "Conv",
    "ConvTranspose",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Tile",
    "Expand",
    "Resize",
    "Range",
    "Loop",
    "Scan",
    "If",
    "Concat",
    "Gather",
    "GatherND",
    "OneHot",
    "TopK",
    "Einsum",
    "AveragePool",
    "MaxPool",
    "LSTM",
    "Attention",
    "ConstantOfShape",
    "Constant",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Flatten",
    "DepthToSpace",
    "SpaceToDepth",
    "axis",
    "axes",
    "pads",
    "strides",
    "dilations",
    "kernel_shape",
    "group",
    "perm",
    "to",
    "value",
    "keepdims",
    "auto_pad",
    "SAME_UPPER",
    "output_padding",
    "output_shape",
    "block_size",
    "num_outputs",
    "equation",
    "com.microsoft",
    "x",
    "y",
];

/// The fields of a message; none where the bytes are not the fields of one.
fn fields(message: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut position = 0;
    while position < message.len() {
        let start = position;
        let tag = read_varint(message, &mut position)?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        if !(1..=30).contains(&number) {
            return None;
        }
        let len = match wire_type {
            0 => {
                let begin = position;
                read_varint(message, &mut position)?;
                position = begin;
                message[begin..].iter().position(|byte| byte & 0x80 == 0)? + 1
            }
            1 => 8,
            2 => usize::try_from(read_varint(message, &mut position)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let end = position.checked_add(len).filter(|&end| end <= message.len())?;
        fields.push(Field { number, wire_type, start, content: position..end });
        position = end;
    }
    Some(fields)
}

fn read_varint(message: &[u8], position: &mut usize) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *message.get(*position)?;
        *position += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A number as protobuf packs it.
pub(crate) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10);
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A field; its length is put before the content of one that has any.
fn encoded(number: u64, wire_type: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(number << 3 | wire_type);
    if wire_type == 2 {
        bytes.extend(varint(content.len() as u64));
    }
    bytes.extend_from_slice(content);
    bytes
}
