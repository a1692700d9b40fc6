//! What a product reads: bytes with their zero points and scales, and what it makes of its sums.

use super::Rounding;
use crate::graph::tensor::{DType, Tensor, TensorError, turned};

/// Activations as unsigned bytes. Signed ones are moved up by 128, their zero point with them: differences stay the same.
pub(super) struct Bytes {
    pub(super) bytes: Vec<u8>,
    pub(super) zero_point: i32,
    pub(super) shape: Vec<usize>,
}

impl Bytes {
    /// In words why not, where it is not of 8 bits with one zero point.
    pub(super) fn of(tensor: &Tensor, zero_point: Option<&Tensor>) -> Result<Bytes, String> {
        let zero_points = zero_point.map(integers).transpose()?.unwrap_or_default();
        let zero_point = match zero_points[..] {
            [] => 0,
            [one] => one,
            _ => return Err(format!("activations have {} zero points", zero_points.len())),
        };
        let shape = tensor.shape().to_vec();
        if let Ok(bytes) = tensor.as_slice::<u8>() {
            return Ok(Bytes { bytes: bytes.to_vec(), zero_point, shape });
        }
        let signed = tensor.as_slice::<i8>().map_err(|_| format!("activations are {}", tensor.dtype()))?;
        let bytes = signed.iter().map(|&byte| byte.cast_unsigned() ^ 0x80).collect();
        Ok(Bytes { bytes, zero_point: zero_point + 128, shape })
    }
}

/// The elements of a tensor of narrow integers.
pub(super) fn integers(tensor: &Tensor) -> Result<Vec<i32>, String> {
    if let Ok(values) = tensor.as_slice::<u8>() {
        return Ok(values.iter().map(|&value| value.into()).collect());
    }
    if let Ok(values) = tensor.as_slice::<i8>() {
        return Ok(values.iter().map(|&value| value.into()).collect());
    }
    tensor.to_vec::<i32>().map_err(|_| format!("{} where integers should be", tensor.dtype()))
}

/// What becomes of sums.
pub(super) enum Becomes {
    /// Nothing: they are the result.
    Sums,
    /// Floats, by a factor for all or for each output.
    Floats { factors: Vec<f32> },
    /// Bytes.
    Bytes { factors: Vec<f32>, zero_point: i32, dtype: DType, rounding: Rounding },
}

/// Results, in the type that they have.
pub(super) enum Results {
    Sums(Vec<i32>),
    Floats(Vec<f32>),
    Unsigned(Vec<u8>),
    Signed(Vec<i8>),
}

impl Becomes {
    /// Of sums that lie output by output, `n_outputs` of them before the next row.
    pub(super) fn of(&self, sums: &[i32], n_outputs: usize) -> Results {
        let n_outputs = n_outputs.max(1);
        match self {
            Becomes::Sums => Results::Sums(sums.to_vec()),
            Becomes::Floats { factors } => {
                Results::Floats(spread(sums, factors, n_outputs).map(|(sum, factor)| sum as f32 * factor).collect())
            }
            Becomes::Bytes { factors, zero_point, dtype, rounding } => {
                let (least, greatest) = if *dtype == DType::I8 { (-128, 127) } else { (0, 255) };
                let (low, high) = ((least - zero_point) as f32, (greatest - zero_point) as f32);
                let quantize = |(sum, factor): (i32, f32)| {
                    let number = (sum as f32 * factor).max(low).min(high);
                    rounding.round(number) as i32 + zero_point
                };
                let bytes = spread(sums, factors, n_outputs).map(quantize);
                match dtype {
                    DType::I8 => Results::Signed(bytes.map(|byte| byte as i8).collect()),
                    _ => Results::Unsigned(bytes.map(|byte| byte as u8).collect()),
                }
            }
        }
    }
}

/// Each sum with the factor of its output.
fn spread<'a>(sums: &'a [i32], factors: &'a [f32], n_outputs: usize) -> impl Iterator<Item = (i32, f32)> + 'a {
    let factor = move |output: usize| factors.get(output).or(factors.first()).copied().unwrap_or(1.0);
    sums.iter().enumerate().map(move |(place, &sum)| (sum, factor(place % n_outputs)))
}

impl Results {
    /// As a tensor.
    pub(super) fn into_tensor(self, shape: &[usize]) -> Result<Tensor, TensorError> {
        match self {
            Results::Sums(values) => Tensor::new(shape, values),
            Results::Floats(values) => Tensor::new(shape, values),
            Results::Unsigned(values) => Tensor::new(shape, values),
            Results::Signed(values) => Tensor::new(shape, values),
        }
    }

    /// What lies channel by channel at each position, position by position in each channel; picture by picture.
    pub(super) fn channels_first(self, n_channels: usize, n_positions: usize) -> Results {
        match self {
            Results::Sums(values) => Results::Sums(turned(&values, n_positions, n_channels)),
            Results::Floats(values) => Results::Floats(turned(&values, n_positions, n_channels)),
            Results::Unsigned(values) => Results::Unsigned(turned(&values, n_positions, n_channels)),
            Results::Signed(values) => Results::Signed(turned(&values, n_positions, n_channels)),
        }
    }
}
