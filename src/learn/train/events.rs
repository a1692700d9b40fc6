//! What a training measured, step by step, as TensorBoard's event files and as JSON lines. Bytes only: whoever calls
//! opens the files, appends, and on resuming cuts them to the length that is told here.
//!
//! An event file is a row of records: length (`u64`), its checksum, the message, its checksum, the checksums masked
//! CRC-32C (TensorFlow, `core/lib/io/record_writer.cc`). The message is `Event` of `core/util/event.proto`. TensorBoard
//! reads files whose name contains `tfevents`.

use std::io;

use indexmap::IndexMap;
use serde::Serialize;

/// One line of JSON: the step, and what was measured by name (`train/loss`, `validation/accuracy`). A number that is
/// not finite is `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line<'a> {
    /// The step after which it was measured.
    pub step: u64,
    /// The epoch in which the step is.
    pub epoch: u64,
    /// The numbers.
    #[serde(flatten)]
    pub values: IndexMap<&'a str, f64>,
}

/// Appends a line of JSON.
///
/// # Errors
/// When the writer fails.
pub fn write_line(mut to: impl io::Write, line: &Line<'_>) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    to.write_all(&bytes)
}

/// The length of the lines that are whole and of at most this step: what to keep of the file when training goes on from
/// there.
pub fn lines_until(bytes: &[u8], step: u64) -> usize {
    let mut kept = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let parsed = serde_json::from_slice::<serde_json::Value>(line).ok().filter(|_| line.ends_with(b"\n"));
        let at = parsed.and_then(|line| line.get("step").and_then(serde_json::Value::as_u64));
        if at.is_none_or(|at| at > step) {
            break;
        }
        kept += line.len();
    }
    kept
}

/// Appends the record that begins an event file. Times are in seconds since 1970.
///
/// # Errors
/// When the writer fails.
pub fn write_header(to: impl io::Write, wall_time: f64) -> io::Result<()> {
    let mut event = Vec::new();
    double(&mut event, 1, wall_time);
    bytes_field(&mut event, 3, b"brain.Event:2");
    write_record(to, &event)
}

/// Appends a record of scalars by tag (`train/loss`).
///
/// # Errors
/// When the writer fails.
pub fn write_scalars(to: impl io::Write, wall_time: f64, step: u64, values: &[(&str, f32)]) -> io::Result<()> {
    let mut summary = Vec::new();
    for &(tag, value) in values {
        let mut scalar = Vec::new();
        bytes_field(&mut scalar, 1, tag.as_bytes());
        key(&mut scalar, 2, FOUR_BYTES);
        scalar.extend(value.to_le_bytes());
        bytes_field(&mut summary, 1, &scalar);
    }
    let mut event = Vec::new();
    double(&mut event, 1, wall_time);
    key(&mut event, STEP, VARINT);
    varint(&mut event, step);
    bytes_field(&mut event, 5, &summary);
    write_record(to, &event)
}

/// The length of the records that are whole and of at most this step, the file's head included: what to keep of the
/// file when training goes on from there. Zero where the file is none of ours.
pub fn records_until(bytes: &[u8], step: u64) -> usize {
    let mut kept = 0;
    while let Some((event, end)) = bytes.get(kept..).and_then(record) {
        if step_of(event).is_none_or(|at| at > step) {
            break;
        }
        kept += end;
    }
    kept
}

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The number of the field `step` of `Event`.
const STEP: u64 = 2;

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn key(to: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(to, field << 3 | wire_type);
}

fn double(to: &mut Vec<u8>, field: u64, value: f64) {
    key(to, field, EIGHT_BYTES);
    to.extend(value.to_le_bytes());
}

fn bytes_field(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(to, field, LENGTH);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn write_record(mut to: impl io::Write, event: &[u8]) -> io::Result<()> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(event.len() + 16);
    record.extend(length);
    record.extend(masked_crc32c(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc32c(event).to_le_bytes());
    // One call: a program that is killed leaves at most one record that is not whole.
    to.write_all(&record)
}

/// The first record's message, and where it ends; none where it is not whole.
fn record(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*length_crc) != masked_crc32c(length) {
        return None;
    }
    let n_bytes = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (event, rest) = rest.split_at_checked(n_bytes)?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == masked_crc32c(event)).then_some((event, n_bytes + 16))
}

/// The step of an event, zero where it has none; none where it is no event.
fn step_of(mut event: &[u8]) -> Option<u64> {
    while !event.is_empty() {
        let key = take_varint(&mut event)?;
        match (key >> 3, key & 7) {
            (STEP, VARINT) => return take_varint(&mut event),
            (_, VARINT) => drop(take_varint(&mut event)?),
            (_, EIGHT_BYTES) => event = event.get(8..)?,
            (_, FOUR_BYTES) => event = event.get(4..)?,
            (_, LENGTH) => {
                let n_bytes = usize::try_from(take_varint(&mut event)?).ok()?;
                event = event.get(n_bytes..)?;
            }
            _ => return None,
        }
    }
    Some(0)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// CRC-32C rotated and shifted, as TensorFlow stores it.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The cyclic redundancy check of RFC 3720, appendix B.4.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32, &byte: &u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (REVERSED_POLYNOMIAL & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    fn events() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        write_header(&mut bytes, 1.5).expect("memory");
        ends.push(bytes.len());
        for step in [1, 2, 300] {
            write_scalars(&mut bytes, 2.0, step, &[("train/loss", 0.25), ("rate", 1e-3)]).expect("memory");
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_record_is_laid_out_as_tensorflow_does() {
        let mut bytes = Vec::new();
        write_scalars(&mut bytes, 0.0, 300, &[("a", 1.0)]).expect("memory");
        let event = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0, 0][..], // wall_time
            &[0x10, 0xac, 0x02],                 // step
            &[0x2a, 10, 0x0a, 8],                // summary, value
            &[0x0a, 1, b'a'],                    // tag
            &[0x15, 0, 0, 0x80, 0x3f],           // simple_value
        ];
        assert_eq!(record(&bytes), Some((event.concat().as_slice(), bytes.len())));
        assert_eq!(bytes[..8], 24u64.to_le_bytes());
    }

    #[test]
    fn a_file_is_cut_to_a_step_and_to_whole_records() {
        let (bytes, ends) = events();
        assert_eq!(records_until(&bytes, 2), ends[2]);
        assert_eq!(records_until(&bytes, 0), ends[0]);
        assert_eq!(records_until(&bytes, 1000), bytes.len());
        for length in ends[1]..ends[2] {
            assert_eq!(records_until(&bytes[..length], 1000), ends[1], "{length} bytes");
        }
        let mut broken = bytes;
        broken[ends[1] + 20] ^= 1;
        assert_eq!(records_until(&broken, 1000), ends[1]);
        assert_eq!(records_until(b"something else that is long enough", 1000), 0);
    }

    #[test]
    fn lines_are_json_and_are_cut_likewise() {
        let mut bytes = Vec::new();
        for step in [1, 2] {
            let values = IndexMap::from([("train/loss", 0.5), ("rate", f64::NAN)]);
            write_line(&mut bytes, &Line { step, epoch: 0, values }).expect("memory");
        }
        let first = "{\"step\":1,\"epoch\":0,\"train/loss\":0.5,\"rate\":null}\n";
        assert!(bytes.starts_with(first.as_bytes()), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(lines_until(&bytes, 1), first.len());
        assert_eq!(lines_until(&bytes, 2), bytes.len());
        assert_eq!(lines_until(&bytes[..bytes.len() - 1], 2), first.len(), "the last line is not whole");
        assert_eq!(lines_until(b"no json\n", 2), 0);
    }
}
