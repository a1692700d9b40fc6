//! How many bytes a file takes once it is compressed: on the way to a device, or in an archive.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes after compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compressed {
    /// By gzip at its usual level, 6.
    pub gzip: u64,
    /// By zstd at its usual level, 3.
    pub zstd: u64,
}

/// What these bytes come to; the compressed ones are counted, not kept.
pub fn compressed(bytes: &[u8]) -> Compressed {
    let mut gzip = GzEncoder::new(Count(0), Compression::new(6));
    let written = gzip.write_all(bytes).and_then(|()| gzip.finish());
    let gzip = written.expect("counting does not fail").0;
    let mut zstd = Count(0);
    zstd::stream::copy_encode(bytes, &mut zstd, 3).expect("counting does not fail");
    Compressed { gzip, zstd: zstd.0 }
}

/// Counts what is written.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_take_next_to_nothing_and_noise_takes_its_room() {
        let nothing = compressed(&[]);
        assert!(nothing.gzip < 32 && nothing.zstd < 32, "{nothing:?}");
        let zeros = compressed(&[0; 100_000]);
        assert!(zeros.gzip < 1_000 && zeros.zstd < 1_000, "{zeros:?}");
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(100_000)
        .collect();
        let whole = compressed(&noise);
        assert!(whole.gzip.abs_diff(100_000) < 1_000, "{whole:?}");
        // every second number of four bytes is zero
        let half: Vec<u8> = noise.iter().enumerate().map(|(k, &byte)| if k / 4 % 2 == 0 { byte } else { 0 }).collect();
        let half = compressed(&half);
        assert!(half.gzip < 80_000 && half.zstd < 80_000, "{half:?}");
    }
}
