//! Elements of 8 bits of float and of 4 and 2 bits of anything, which crate ort gives no safe view of: they go in and out
//! through a model of one Cast, run by onnxruntime itself, from and to a wide type that holds each of them exactly.
//!
//! NaN comes out as the first NaN code of its type: sign and payload are lost.

use std::collections::HashMap;

use ort::session::{Session, SessionInputValue};
use ort::value::DynValue;

use super::{Onnxruntime, elements};
use crate::graph::tensor::{DType, Tensor};
use crate::measure::runtime::{ModelBytes, Optimization, Options};

/// The casting sessions of one session, made when first needed.
#[derive(Default)]
pub(super) struct Casts {
    sessions: HashMap<(DType, DType), Session>,
}

/// The wide type through which a narrow one goes; none for types that need none and for those that have none.
pub(super) fn wide(dtype: DType) -> Option<DType> {
    match dtype {
        DType::I4 | DType::I2 => Some(DType::I8),
        DType::U4 | DType::U2 => Some(DType::U8),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
            Some(DType::F32)
        }
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::Bool | DType::String => None,
        DType::I64 | DType::I32 | DType::I16 | DType::I8 => None,
        DType::U64 | DType::U32 | DType::U16 | DType::U8 => None,
        DType::F6E2M3 | DType::F6E3M2 | DType::Complex64 | DType::Complex128 => None,
    }
}

impl Casts {
    /// onnxruntime's value for a narrow tensor.
    pub(super) fn hand_in(&mut self, runtime: &Onnxruntime, tensor: &Tensor) -> Result<DynValue, String> {
        let dtype = tensor.dtype();
        let wide = wide(dtype).ok_or_else(|| super::no_view(dtype))?;
        let codes = codes(tensor);
        let shape = tensor.shape();
        let widened = if wide == DType::I8 {
            Tensor::new(shape, codes.iter().map(|&code| signed(dtype, code)).collect())
        } else if wide == DType::U8 {
            Tensor::new(shape, codes)
        } else {
            Tensor::new(shape, codes.iter().map(|&code| float(dtype, code)).collect())
        };
        let widened = widened.map_err(|error| error.to_string())?;
        let value = super::to_ort(&widened);
        self.cast(runtime, value?, wide, dtype)
    }

    /// The narrow tensor in a value of onnxruntime's.
    pub(super) fn take_out(
        &mut self,
        runtime: &Onnxruntime,
        value: &DynValue,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor, String> {
        let wide = wide(dtype).ok_or_else(|| super::no_view(dtype))?;
        let widened = self.cast(runtime, SessionInputValue::from(value), dtype, wide)?;
        let mask = u8::MAX >> (8 - dtype.n_bits());
        let codes = if wide == DType::I8 {
            let numbers = elements::<i8>(&widened, shape)?.to_vec::<i8>();
            numbers.map(|numbers| numbers.into_iter().map(i8::cast_unsigned).collect())
        } else if wide == DType::U8 {
            elements::<u8>(&widened, shape)?.to_vec::<u8>()
        } else {
            let floats = elements::<f32>(&widened, shape)?.to_vec::<f32>();
            floats.map(|floats| float_codes(dtype, &floats))
        };
        let codes = codes.map_err(|error| error.to_string())?;
        let mut bytes = vec![0u8; dtype.n_bytes(codes.len()).expect("it was allocated wider")];
        for (idx, code) in codes.iter().enumerate() {
            let bit = idx * dtype.n_bits();
            bytes[bit / 8] |= (code & mask) << (bit % 8);
        }
        Tensor::from_bytes(dtype, shape, bytes.into()).map_err(|error| error.to_string())
    }

    fn cast(
        &mut self,
        runtime: &Onnxruntime,
        value: SessionInputValue<'_>,
        from: DType,
        to: DType,
    ) -> Result<DynValue, String> {
        let session = match self.sessions.entry((from, to)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let options = Options { optimization: Optimization::None, ..Options::default() };
                let session = runtime.commit(&ModelBytes::new(cast_model(from, to)), &options);
                entry.insert(
                    session.map_err(|error| format!("it has no Cast from {from} to {to}: {}", error.message()))?,
                )
            }
        };
        let mut outputs = session.run(vec![("x", value)]).map_err(|error| error.message().to_owned())?;
        outputs.remove("y").ok_or_else(|| "the Cast gave nothing".to_owned())
    }
}

/// `y = Cast(x, to)` at opset 25 as a file, with `saturate = 0` where onnxruntime takes that: to 8 bits of float. Every
/// length and number in it is below 128, a byte each.
fn cast_model(from: DType, to: DType) -> Vec<u8> {
    let number = |dtype: DType| u8::try_from(dtype.onnx()).expect("there are 28 types");
    let message = |field: u8, body: &[u8]| {
        let size = u8::try_from(body.len()).expect("the whole file is below 128 bytes");
        [&[field << 3 | 2, size], body].concat()
    };
    let value = |field: u8, name: &[u8], dtype: DType| {
        let tensor = message(1, &[1 << 3, number(dtype)]);
        message(field, &[message(1, name), message(2, &tensor)].concat())
    };
    let attribute = |name: &[u8], i: u8| {
        message(5, &[&message(1, name)[..], &[3 << 3, i, ((20 << 3) & 0x7f) | 0x80, 1, 2]].concat())
    };
    let mut node = vec![message(1, b"x"), message(2, b"y"), message(4, b"Cast"), attribute(b"to", number(to))];
    if [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ].contains(&to) {
        node.push(attribute(b"saturate", 0));
    }
    let graph = [message(1, &node.concat()), message(2, b"cast"), value(11, b"x", from), value(12, b"y", to)];
    let opset = message(8, &[2 << 3, 25]);
    [&[1 << 3, 10][..], &message(7, &graph.concat()), &opset].concat()
}

/// The elements' bits, each in the low end of a byte.
fn codes(tensor: &Tensor) -> Vec<u8> {
    let n_bits = tensor.dtype().n_bits();
    let bytes = tensor.bytes().map_or(&[][..], |bytes| &bytes[..]);
    let mask = u8::MAX >> (8 - n_bits);
    (0..tensor.len()).map(|idx| idx * n_bits).map(|bit| bytes[bit / 8] >> (bit % 8) & mask).collect()
}

fn signed(dtype: DType, code: u8) -> i8 {
    let spare = 8 - dtype.n_bits();
    (code << spare).cast_signed() >> spare
}

/// The codes of numbers that the type has; a number that it does not have, which no Cast to it gives, is NaN's code.
fn float_codes(dtype: DType, numbers: &[f32]) -> Vec<u8> {
    let all: Vec<f32> = (0..=u8::MAX >> (8 - dtype.n_bits())).map(|code| float(dtype, code)).collect();
    let code = |bits: u32| all.iter().position(|number| number.to_bits() == bits);
    let nan = all.iter().position(|number| number.is_nan()).unwrap_or_default();
    let found = |number: &f32| u8::try_from(code(number.to_bits()).unwrap_or(nan)).expect("there are 256 codes");
    numbers.iter().map(found).collect()
}

/// (type, bits of exponent, bits of mantissa, bias of the exponent)
const FORMATS: [(DType, u8, u8, i16); 5] = [
    (DType::F8E4M3FN, 4, 3, 7),
    (DType::F8E4M3FNUZ, 4, 3, 8),
    (DType::F8E5M2, 5, 2, 15),
    (DType::F8E5M2FNUZ, 5, 2, 16),
    (DType::F4E2M1, 2, 1, 1),
];

/// The number of a float code (OCP Microscaling Formats 1.0, §5.3; the FNUZ types: Noune et al. 2022, table 1).
fn float(dtype: DType, code: u8) -> f32 {
    if dtype == DType::F8E8M0 {
        return if code == 255 { f32::NAN } else { (f64::from(code) - 127.0).exp2() as f32 };
    }
    let (_, n_exponent, n_mantissa, bias) =
        *FORMATS.iter().find(|row| row.0 == dtype).expect("it is asked for narrow floats only");
    let sign = if code >> (n_exponent + n_mantissa) == 1 { -1.0 } else { 1.0 };
    let exponent = (code >> n_mantissa) & ((1 << n_exponent) - 1);
    let mantissa = code & ((1 << n_mantissa) - 1);
    let is_nan = (dtype == DType::F8E4M3FN && code & 0x7f == 0x7f)
        || ([DType::F8E4M3FNUZ, DType::F8E5M2FNUZ].contains(&dtype) && code == 0x80)
        || (dtype == DType::F8E5M2 && exponent == 31 && mantissa != 0);
    if is_nan {
        return f32::NAN;
    }
    if dtype == DType::F8E5M2 && exponent == 31 {
        return sign * f32::INFINITY;
    }
    let implicit = if exponent == 0 { 0 } else { 1 << n_mantissa };
    let scale = i16::from(exponent.max(1)) - bias - i16::from(n_mantissa);
    sign * f32::from(implicit + mantissa) * f32::from(scale).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Greatest numbers and least subnormals as the formats' papers give them.
    #[test]
    fn codes_are_the_published_numbers() {
        let check =
            |dtype: DType, code: u8, expected: f32| assert_eq!(float(dtype, code), expected, "{dtype} {code:#x}");
        check(DType::F8E4M3FN, 0x7e, 448.0);
        check(DType::F8E4M3FN, 0x01, 2f32.powi(-9));
        check(DType::F8E4M3FNUZ, 0x7f, 240.0);
        check(DType::F8E5M2, 0x7b, 57_344.0);
        check(DType::F8E5M2, 0xfc, f32::NEG_INFINITY);
        check(DType::F8E5M2FNUZ, 0x7f, 57_344.0);
        check(DType::F4E2M1, 0x7, 6.0);
        check(DType::F4E2M1, 0x9, -0.5);
        check(DType::F8E8M0, 127, 1.0);
        check(DType::F8E8M0, 0, 2f32.powi(-127));
        assert!(float(DType::F8E4M3FN, 0xff).is_nan() && float(DType::F8E4M3FNUZ, 0x80).is_nan());
        assert_eq!([0u8, 7, 8, 15].map(|code| signed(DType::I4, code)), [0, 7, -8, -1]);
    }

    #[test]
    fn packed_codes_are_unpacked_from_the_low_end() {
        let tensor = Tensor::from_bytes(DType::U2, &[5], vec![0b11_10_01_00, 0b10].into()).expect("two bytes");
        assert_eq!(codes(&tensor), [0, 1, 2, 3, 2]);
    }
}
