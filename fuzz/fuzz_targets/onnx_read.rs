//! Any bytes, through all that aludel does with a model before it runs it. Every other mutation knows how protobuf is laid
//! out, so that the fuzzer comes behind the first checks.

#![no_main]

#[path = "../../tests/integration/hostile/exercise.rs"]
mod exercise;
#[path = "../../tests/integration/hostile/mutate.rs"]
mod mutate;

use bytes::Bytes;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| {
    let _ = exercise::exercise(Bytes::copy_from_slice(data));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let mutant = mutate::mutant(&data[..size], &mut mutate::Random::new(u64::from(seed)));
    let size = mutant.len().min(max_size);
    data[..size].copy_from_slice(&mutant[..size]);
    size
});
