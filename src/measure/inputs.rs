//! Inputs for models whose data one does not have: the same seed gives the same tensors on every machine and in every
//! build.

use std::collections::BTreeMap;

use half::{bf16, f16};

use super::runtime::{Dim, ValueInfo};
use crate::graph::tensor::bits::pack;
use crate::graph::tensor::{DType, Tensor, TensorError};

/// Numbers for dimensions that the model leaves open: by the dimension's name, or, for one without a name, by input and
/// axis (`tokens#0`).
pub type Bindings = BTreeMap<String, usize>;

/// Why inputs cannot be made up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// It is no tensor, or not even the number of its dimensions is known.
    #[error("cannot make up input `{0}`, whose type or number of dimensions the model does not declare")]
    Undeclared(String),
    /// A binding that no input has.
    #[error("no input has an open dimension `{name}`; there are {known:?}")]
    NoSuchDimension {
        /// the name bound
        name: String,
        /// the names there are
        known: Vec<String>,
    },
    /// Its size does not fit the memory, or its type cannot be filled.
    #[error("cannot make up input `{name}`: {error}")]
    Tensor {
        /// the input
        name: String,
        /// why
        error: TensorError,
    },
}

/// The shape of an input: open dimensions from the bindings, those unbound 1.
///
/// # Errors
/// When the model does not declare the number of dimensions.
pub fn shape(info: &ValueInfo, bindings: &Bindings) -> Result<Vec<usize>, InputError> {
    let dims = info.dims.as_ref().ok_or_else(|| InputError::Undeclared(info.name.clone()))?;
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Known(size) => *size,
        Dim::Symbol(_) | Dim::Unknown => bindings.get(&key(info, axis, dim)).copied().unwrap_or(1),
    };
    Ok(dims.iter().enumerate().map(size).collect())
}

fn key(info: &ValueInfo, axis: usize, dim: &Dim) -> String {
    match dim {
        Dim::Symbol(name) => name.clone(),
        Dim::Known(_) | Dim::Unknown => unnamed_key(&info.name, axis),
    }
}

/// The key in [`Bindings`] of a dimension without a name.
pub fn unnamed_key(input: &str, axis: usize) -> String {
    format!("{input}#{axis}")
}

/// A tensor for every input, in order. Floats are uniform in [−1, 1); bytes are any byte, signed ones not negative;
/// wider integers are 0 or 1, which index any table, token types included; booleans are even; strings are digits. Each input has its own stream, decided by the seed and its name, so that a further input does not change the others.
///
/// # Errors
/// When an input's type or rank is not declared, a binding names no dimension, or a tensor does not fit the memory.
pub fn random(infos: &[ValueInfo], bindings: &Bindings, seed: u64) -> Result<Vec<(String, Tensor)>, InputError> {
    check_bindings(infos, bindings)?;
    infos.iter().map(|info| Ok((info.name.clone(), random_one(info, bindings, seed)?))).collect()
}

/// The tensor that [`random`] gives this input. Bindings of other inputs' dimensions are passed over;
/// [`check_bindings`] finds those that no input has.
///
/// # Errors
/// When the input's type or rank is not declared, or the tensor does not fit the memory.
pub fn random_one(info: &ValueInfo, bindings: &Bindings, seed: u64) -> Result<Tensor, InputError> {
    let shape = shape(info, bindings)?;
    let dtype = info.dtype.ok_or_else(|| InputError::Undeclared(info.name.clone()))?;
    let mut random = SplitMix64::for_name(seed, &info.name);
    fill(dtype, &shape, &mut random).map_err(|error| InputError::Tensor { name: info.name.clone(), error })
}

/// Checks that every binding names an open dimension of these inputs.
///
/// # Errors
/// The first that does not.
pub fn check_bindings(infos: &[ValueInfo], bindings: &Bindings) -> Result<(), InputError> {
    let known = open_dimensions(infos);
    match bindings.keys().find(|name| !known.contains(name)) {
        Some(name) => Err(InputError::NoSuchDimension { name: name.clone(), known }),
        None => Ok(()),
    }
}

/// The keys that [`Bindings`] may have for these inputs, each once, in order of appearance.
pub fn open_dimensions(infos: &[ValueInfo]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for info in infos {
        let dims = info.dims.iter().flatten().enumerate();
        for (axis, dim) in dims.filter(|(_, dim)| !matches!(dim, Dim::Known(_))) {
            let key = key(info, axis, dim);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

/// A tensor of this type and shape, filled as [`random`] says.
///
/// # Errors
/// When it does not fit the memory.
pub fn fill(dtype: DType, shape: &[usize], random: &mut SplitMix64) -> Result<Tensor, TensorError> {
    let n = crate::graph::tensor::n_elements(shape);
    let n = n.filter(|&n| dtype.n_bytes(n).is_some());
    let n = n.ok_or_else(|| TensorError::TooLarge { dtype, shape: shape.to_vec() })?;
    macro_rules! filled {
        ($next:expr) => {
            Tensor::new(shape, std::iter::repeat_with($next).take(n).collect())
        };
    }
    match dtype {
        DType::F64 => filled!(|| random.unit()),
        DType::F32 => filled!(|| random.unit() as f32),
        DType::F16 => filled!(|| f16::from_f64(random.unit())),
        DType::BF16 => filled!(|| bf16::from_f64(random.unit())),
        DType::I64 => filled!(|| i64::from(random.bit())),
        DType::I32 => filled!(|| i32::from(random.bit())),
        DType::I16 => filled!(|| i16::from(random.bit())),
        DType::I8 => filled!(|| i8::try_from(random.byte() / 2).expect("it is below 128")),
        DType::U64 => filled!(|| u64::from(random.bit())),
        DType::U32 => filled!(|| u32::from(random.bit())),
        DType::U16 => filled!(|| u16::from(random.bit())),
        DType::U8 => filled!(|| random.byte()),
        DType::Bool => filled!(|| random.bit()),
        DType::String => {
            let strings = std::iter::repeat_with(|| (random.byte() % 10).to_string().into()).take(n).collect();
            Tensor::from_strings(shape, strings)
        }
        DType::I4 | DType::U4 | DType::I2 | DType::U2 => bits(dtype, shape, n, random),
        DType::F6E2M3 | DType::F6E3M2 => bits(dtype, shape, n, random),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
            bits(dtype, shape, n, random)
        }
        DType::Complex64 | DType::Complex128 => {
            let width = dtype.n_bits() / 16;
            let part = |random: &mut SplitMix64| match width {
                4 => (random.unit() as f32).to_le_bytes().to_vec(),
                _ => random.unit().to_le_bytes().to_vec(),
            };
            let bytes: Vec<u8> = (0..2 * n).flat_map(|_| part(random)).collect();
            Tensor::from_bytes(dtype, shape, bytes.into())
        }
    }
}

/// Narrow types: small non-negative codes, which in no format are NaN. Bits beyond the last element are zero.
fn bits(dtype: DType, shape: &[usize], n: usize, random: &mut SplitMix64) -> Result<Tensor, TensorError> {
    let n_bits = dtype.n_bits();
    let mask = if n_bits == 2 { 1 } else { 7 };
    let codes: Vec<u8> = std::iter::repeat_with(|| random.byte() & mask).take(n).collect();
    Tensor::from_bytes(dtype, shape, pack(n_bits, &codes).into())
}

/// SplitMix64 (Steele, Lea and Flood 2014): 64 bits of state, and the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The generator of this seed.
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64 { state: seed }
    }

    /// The generator of this seed for the thing of this name (FNV-1a, Fowler, Noll and Vo).
    pub fn for_name(seed: u64, name: &str) -> SplitMix64 {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        SplitMix64::new(SplitMix64::new(seed ^ hash).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [−1, 1), a multiple of 2⁻²³: exact in f32.
    fn unit(&mut self) -> f64 {
        (self.next_u64() >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    }

    fn byte(&mut self) -> u8 {
        self.next_u64().to_be_bytes()[0]
    }

    fn bit(&mut self) -> bool {
        self.byte() >= 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, dtype: DType, dims: Vec<Dim>) -> ValueInfo {
        ValueInfo { name: name.to_owned(), dtype: Some(dtype), dims: Some(dims) }
    }

    /// First outputs for seed 1234567, from the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c).
    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn every_type_can_be_filled() {
        for dtype in DType::all() {
            let tensor = fill(dtype, &[3, 5], &mut SplitMix64::new(1)).expect("it fits");
            assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &[3, 5][..]));
        }
        assert!(fill(DType::F32, &[usize::MAX, 2], &mut SplitMix64::new(1)).is_err());
    }

    #[test]
    fn an_input_does_not_depend_on_its_neighbours() {
        let symbol = || Dim::Symbol("batch".to_owned());
        let x = info("x", DType::F32, vec![symbol(), Dim::Known(4)]);
        let y = info("y", DType::I64, vec![symbol(), Dim::Unknown]);
        let bindings = Bindings::from([("batch".to_owned(), 3), ("y#1".to_owned(), 2)]);
        let both = random(&[x.clone(), y], &bindings, 7).expect("declared");
        let alone = random(&[x], &Bindings::from([("batch".to_owned(), 3)]), 7).expect("declared");
        assert_eq!(both[0], alone[0]);
        assert_eq!(both[1].1.shape(), [3, 2]);
        assert!(both[1].1.as_slice::<i64>().expect("i64").iter().all(|&i| (0..2).contains(&i)));
    }

    #[test]
    fn one_input_does_not_need_the_others_declared() {
        let undeclared = ValueInfo { name: "u".to_owned(), dtype: Some(DType::F32), dims: None };
        let x = info("x", DType::F32, vec![Dim::Symbol("n".to_owned())]);
        let bindings = Bindings::from([("n".to_owned(), 3)]);
        let infos = [undeclared.clone(), x.clone()];
        assert_eq!(check_bindings(&infos, &bindings), Ok(()));
        assert!(check_bindings(&infos[..1], &bindings).is_err());
        assert_eq!(random(&infos, &bindings, 7), Err(InputError::Undeclared("u".to_owned())));
        assert_eq!(random_one(&undeclared, &bindings, 7), Err(InputError::Undeclared("u".to_owned())));
        let alone = random(std::slice::from_ref(&x), &bindings, 7).expect("declared");
        assert_eq!(random_one(&x, &bindings, 7).as_ref(), Ok(&alone[0].1));
    }

    #[test]
    fn a_binding_without_dimension_is_refused() {
        let x = info("x", DType::F32, vec![Dim::Symbol("n".to_owned())]);
        let error = random(&[x], &Bindings::from([("batch".to_owned(), 3)]), 7).expect_err("there is only n");
        assert_eq!(error.to_string(), "no input has an open dimension `batch`; there are [\"n\"]");
    }
}
