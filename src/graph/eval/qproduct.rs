//! Matrix products of quantized matrices.
//!
//! Sums of products of integers are exact; they are scaled in `f32`, as onnxruntime does it, so that its results come out
//! bit for bit.

use super::args::{Args, allocation};
use super::numbers::{Numbers, int_list};
use super::quantize::quantized;
use super::shapes::{broadcast, broadcast_positions};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};

/// Sums beyond the range of `i32` wrap.
pub(super) fn matmul_integer(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    if let Some(other) = [a, b].into_iter().find(|tensor| !matches!(tensor.dtype(), DType::I8 | DType::U8)) {
        return Err(args.undefined(other.dtype()));
    }
    let left = Matrix::centred(a, args.optional(2), Side::Left)?;
    let product = left.times(&Matrix::centred(b, args.optional(3), Side::Right)?)?;
    let sums = product.values.iter().map(|&sum| sum as i128).collect();
    Ok(Numbers::Int(sums).into_tensor(DType::I32, &product.shape)?.reshaped(&product.numpy_shape(a, b))?)
}

pub(super) fn qlinear_matmul(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(3)?);
    let left = Matrix::centred(a, Some(args.get(2)?), Side::Left)?;
    let product = left.times(&Matrix::centred(b, Some(args.get(5)?), Side::Right)?)?;
    let scales = product_scales(args, 1.0, &product.shape)?;
    let scaled = requantized(&product, &scales, args.get(6)?, args.get(7)?)?;
    Ok(scaled.reshaped(&product.numpy_shape(a, b))?)
}

/// `alpha · A · B + C`, quantized where `y_scale` is there, else `f32`. `C` has the scale of the product.
pub(super) fn qgemm(args: Args<'_>, op: &op::QGemm) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(3)?);
    if a.shape().len() != 2 || b.shape().len() != 2 {
        return Err(invalid(format!("QGemm takes two matrices, got {:?} and {:?}", a.shape(), b.shape())));
    }
    let left = Matrix::centred(a, Some(args.get(2)?), Side::Left)?.transposed(op.trans_a);
    // Zero points are by column of the product, which are the rows of a `B` that is yet to be transposed.
    let side = if op.trans_b { Side::Left } else { Side::Right };
    let mut product = left.times(&Matrix::centred(b, Some(args.get(5)?), side)?.transposed(op.trans_b))?;
    product.add(args.optional(6))?;
    let scales = product_scales(args, op.alpha, &product.shape)?;
    match args.optional(7) {
        None => {
            let values = product.values.iter().zip(scales).map(|(&sum, scale)| sum as f32 * scale).collect();
            Ok(Tensor::new(&product.shape, values)?)
        }
        Some(y_scale) => {
            let zero = Tensor::zeros(a.dtype(), &[])?;
            requantized(&product, &scales, y_scale, args.optional(8).unwrap_or(&zero))
        }
    }
}

/// The right matrix, `[K, N]`, is kept in blocks of `block_size` small integers along `K`, each block with its scale.
pub(super) fn matmul_n_bits(args: Args<'_>, op: &op::MatMulNBits) -> Result<Tensor, EvalError> {
    let a = args.get(0)?;
    let right = unpacked(args, op)?;
    let left = Matrix::centred(a, None, Side::Left)?;
    let mut product = left.times(&right)?;
    product.add(args.optional(5))?;
    let mut shape = product.shape.clone();
    if a.shape().len() == 1 {
        shape.remove(0);
    }
    Numbers::Float(product.values).into_tensor(a.dtype(), &shape)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Numbers in two dimensions or more.
struct Matrix {
    values: Vec<f64>,
    shape: Vec<usize>,
}

impl Matrix {
    /// A tensor less its zero points; a vector becomes a row on the left and a column on the right.
    fn centred(tensor: &Tensor, zero_point: Option<&Tensor>, side: Side) -> Result<Matrix, EvalError> {
        let shape = match (tensor.shape(), side) {
            ([], _) => return Err(invalid("a matrix product of a scalar")),
            (&[size], Side::Left) => vec![1, size],
            (&[size], Side::Right) => vec![size, 1],
            (shape, _) => shape.to_vec(),
        };
        let mut values = Numbers::floats(tensor)?;
        if let Some(zero_point) = zero_point {
            let zero_points = spread(zero_point, side, &shape)?;
            values.iter_mut().zip(zero_points).for_each(|(value, zero_point)| *value -= zero_point);
        }
        Ok(Matrix { values, shape })
    }

    fn n_rows(&self) -> usize {
        self.shape[self.shape.len() - 2]
    }

    fn n_columns(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    /// Of two dimensions only.
    fn transposed(self, wanted: bool) -> Matrix {
        if !wanted {
            return self;
        }
        let (n_rows, n_columns) = (self.n_rows(), self.n_columns());
        let columns = (0..n_columns).flat_map(|column| (0..n_rows).map(move |row| row * n_columns + column));
        Matrix { values: columns.map(|position| self.values[position]).collect(), shape: vec![n_columns, n_rows] }
    }

    fn times(&self, right: &Matrix) -> Result<Matrix, EvalError> {
        let (n_rows, n_inner, n_columns) = (self.n_rows(), self.n_columns(), right.n_columns());
        if right.n_rows() != n_inner {
            return Err(invalid(format!("a matrix product of {:?} and {:?}", self.shape, right.shape)));
        }
        let (left_batch, right_batch) = (&self.shape[..self.shape.len() - 2], &right.shape[..right.shape.len() - 2]);
        let batch = broadcast(&[left_batch, right_batch])?;
        let shape = [&batch[..], &[n_rows, n_columns]].concat();
        let mut values = Vec::with_capacity(allocation(&shape)?);
        let pairs = broadcast_positions(left_batch, &batch)?.into_iter().zip(broadcast_positions(right_batch, &batch)?);
        for (left_idx, right_idx) in pairs {
            let right_values = &right.values[right_idx * n_inner * n_columns..][..n_inner * n_columns];
            for row in 0..n_rows {
                let left_row = &self.values[(left_idx * n_rows + row) * n_inner..][..n_inner];
                let mut sums = vec![0.0; n_columns];
                for (inner, &factor) in left_row.iter().enumerate() {
                    let right_row = &right_values[inner * n_columns..][..n_columns];
                    sums.iter_mut().zip(right_row).for_each(|(sum, &value)| *sum += factor * value);
                }
                values.extend(sums);
            }
        }
        Ok(Matrix { values, shape })
    }

    fn add(&mut self, bias: Option<&Tensor>) -> Result<(), EvalError> {
        let Some(bias) = bias else { return Ok(()) };
        let positions = broadcast_positions(bias.shape(), &self.shape)?;
        let bias = Numbers::floats(bias)?;
        self.values.iter_mut().zip(positions).for_each(|(sum, position)| *sum += bias[position]);
        Ok(())
    }

    /// The shape of this product as NumPy's `matmul` has it: without the dimensions that vectors were given.
    fn numpy_shape(&self, a: &Tensor, b: &Tensor) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if b.shape().len() == 1 {
            shape.pop();
        }
        if a.shape().len() == 1 {
            shape.remove(self.shape.len() - 2);
        }
        shape
    }
}

/// A scale or zero point for every element of a matrix of this shape: one for all, one a row (on the left), one a column
/// (on the right), or with as many dimensions as the matrix.
fn spread(parameter: &Tensor, side: Side, shape: &[usize]) -> Result<Vec<f64>, EvalError> {
    let own = match (parameter.shape(), side) {
        _ if parameter.len() == 1 => vec![],
        (&[size], Side::Left) => vec![size, 1],
        (&[size], Side::Right) => vec![1, size],
        (own, _) => own.to_vec(),
    };
    let values = Numbers::floats(parameter)?;
    Ok(broadcast_positions(&own, shape)?.into_iter().map(|position| values[position]).collect())
}

/// `alpha · a_scale · b_scale` for every element of the product; the scales are inputs 1 and 4.
fn product_scales(args: Args<'_>, alpha: f32, shape: &[usize]) -> Result<Vec<f32>, EvalError> {
    let a_scales = spread(args.get(1)?, Side::Left, shape)?;
    let b_scales = spread(args.get(4)?, Side::Right, shape)?;
    Ok(a_scales.iter().zip(b_scales).map(|(&a, b)| alpha * a as f32 * b as f32).collect())
}

fn requantized(product: &Matrix, scales: &[f32], y_scale: &Tensor, zero_point: &Tensor) -> Result<Tensor, EvalError> {
    let y_scales = spread(y_scale, Side::Left, &product.shape)?;
    let zero_points = spread(zero_point, Side::Left, &product.shape)?;
    let ratios = scales.iter().zip(y_scales).map(|(&scale, y_scale)| scale / y_scale as f32);
    let quotients = product.values.iter().zip(ratios).map(|(&sum, ratio)| f64::from(sum as f32 * ratio));
    quantized(quotients.zip(zero_points), zero_point.dtype(), &product.shape, true)
}

fn unpacked(args: Args<'_>, op: &op::MatMulNBits) -> Result<Matrix, EvalError> {
    let size = |value: i64, name: &str| {
        let size = usize::try_from(value).ok().filter(|&size| size > 0);
        size.ok_or_else(|| invalid(format!("MatMulNBits with {name} = {value}")))
    };
    let (k, n, block_size) = (size(op.k, "K")?, size(op.n, "N")?, size(op.block_size, "block_size")?);
    let n_bits = size(op.bits, "bits")?;
    if n_bits > 8 || op.weight_prepacked != 0 {
        return Err(EvalError::Undefined(format!("MatMulNBits of {n_bits} bits, prepacked {}", op.weight_prepacked)));
    }
    let n_blocks = k.div_ceil(block_size);
    let too_large = || EvalError::TooLarge(vec![k, n]);
    let bytes_a_block = block_size.checked_mul(n_bits).ok_or_else(too_large)?.div_ceil(8);
    let expect = |tensor: &Tensor, n_expected: Option<usize>, what: &str| match n_expected {
        Some(n_expected) if n_expected == tensor.len() => Ok(()),
        _ => Err(invalid(format!("MatMulNBits: {what} of shape {:?} for K = {k}, N = {n}", tensor.shape()))),
    };
    let (weights, scales) = (args.get(1)?, args.get(2)?);
    expect(weights, n.checked_mul(n_blocks).and_then(|blocks| blocks.checked_mul(bytes_a_block)), "weights")?;
    expect(scales, n.checked_mul(n_blocks), "scales")?;
    let weights = weights.as_slice::<u8>()?;
    let scales = Numbers::floats(scales)?;
    let zero_points = match args.optional(3) {
        None => vec![f64::from(1u8 << (n_bits - 1)); n * n_blocks],
        Some(packed) if packed.dtype() == DType::U8 => {
            let bytes_a_row = (n_blocks * n_bits).div_ceil(8);
            expect(packed, n.checked_mul(bytes_a_row), "zero points")?;
            let rows = packed.as_slice::<u8>()?.chunks(bytes_a_row);
            rows.flat_map(|row| (0..n_blocks).map(|block| bits(row, block, n_bits))).collect()
        }
        Some(plain) => {
            expect(plain, n.checked_mul(n_blocks), "zero points")?;
            Numbers::floats(plain)?
        }
    };
    let groups = groups(args, k, block_size, n_blocks)?;
    let mut values = vec![0.0; allocation(&[k, n])?];
    for (column, blocks) in weights.chunks(n_blocks * bytes_a_block).enumerate() {
        for (row, &group) in groups.iter().enumerate() {
            let block = &blocks[row / block_size * bytes_a_block..][..bytes_a_block];
            let parameter = column * n_blocks + group;
            values[row * n + column] =
                (bits(block, row % block_size, n_bits) - zero_points[parameter]) * scales[parameter];
        }
    }
    Ok(Matrix { values, shape: vec![k, n] })
}

/// The number of the block whose scale is for each row of the weight.
fn groups(args: Args<'_>, k: usize, block_size: usize, n_blocks: usize) -> Result<Vec<usize>, EvalError> {
    let Some(groups) = args.optional(4) else {
        return Ok((0..k).map(|row| row / block_size).collect());
    };
    let groups: Option<Vec<usize>> = int_list(groups)?
        .into_iter()
        .map(|group| usize::try_from(group).ok().filter(|&group| group < n_blocks))
        .collect();
    groups
        .filter(|groups| groups.len() == k)
        .ok_or_else(|| invalid(format!("g_idx should be {k} of {n_blocks} blocks")))
}

/// Number `idx` of a row of unsigned integers of `n_bits`, packed without gaps from the lowest bit up.
fn bits(packed: &[u8], idx: usize, n_bits: usize) -> f64 {
    let first = idx * n_bits;
    let byte = |at: usize| u16::from(packed.get(at).copied().unwrap_or(0));
    let pair = byte(first / 8) | (byte(first / 8 + 1) << 8);
    f64::from((pair >> (first % 8)) & ((1 << n_bits) - 1))
}

/// Expectations from onnxruntime 1.31.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{optional_output, output, tensor};
    use crate::graph::op::Op;

    fn operands() -> (Tensor, Tensor) {
        (tensor(&[2, 3], [0u8, 3, 128, 200, 255, 7]), tensor(&[3, 2], [1i8, -2, 30, -128, 127, 5]))
    }

    /// `A a_scale a_zero_point B b_scale b_zero_point`, one scale and zero point a column.
    fn quantized_operands() -> Vec<Tensor> {
        let (a, b) = operands();
        let (b_scale, b_zero) = (tensor(&[2], [0.013f32, 0.5]), tensor(&[2], [3i8, -3]));
        vec![a, Tensor::scalar(0.02f32), Tensor::scalar(5u8), b, b_scale, b_zero]
    }

    #[test]
    fn integers_are_summed_exactly() {
        let (a, b) = operands();
        let product = output(&Op::MatMulInteger, &[&a, &b, &Tensor::scalar(5u8), &tensor(&[2], [3i8, -3])]);
        assert_eq!(product, Ok(tensor(&[2, 2], [15208, 1229, 6608, -31039])));
        let rows = output(&Op::MatMulInteger, &[&tensor(&[2], [2u8, 3]), &tensor(&[2], [-5i8, 7])]);
        assert_eq!(rows, Ok(Tensor::scalar(11)));
        let wide = output(&Op::MatMulInteger, &[&tensor(&[1, 1], [1i32]), &b]);
        assert_eq!(wide.expect_err("refused").to_string(), "MatMulInteger on i32 is not defined");
        assert_eq!(
            output(&Op::MatMulInteger, &[&a, &a]).expect_err("2 and 3").to_string(),
            "a matrix product of [2, 3] and [2, 3]"
        );
    }

    #[test]
    fn products_are_requantized() {
        let mut inputs = quantized_operands();
        inputs.extend([Tensor::scalar(0.9f32), Tensor::scalar(9u8)]);
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        assert_eq!(output(&Op::QLinearMatMul, &inputs), Ok(tensor(&[2, 2], [13u8, 23, 11, 0])));
    }

    #[test]
    fn a_product_of_narrow_floats_is_rounded_to_one() {
        let narrow = |values: &[f64], shape: &[usize]| {
            Numbers::Float(values.to_vec()).into_tensor(DType::F8E4M3FN, shape).expect("as many")
        };
        let (one, zero) = (Tensor::scalar(1f32), narrow(&[0.0], &[]));
        let (a, b) = (narrow(&[1.5, -2.0], &[1, 2]), narrow(&[3.0, 16.0], &[2, 1]));
        let product = output(&Op::QLinearMatMul, &[&a, &one, &zero, &b, &one, &zero, &one, &zero]);
        assert_eq!(product.and_then(|tensor| Numbers::floats(&tensor)), Ok(vec![-28.0]));
    }

    #[test]
    fn qgemm_adds_its_bias_before_scaling() {
        let op = |trans_a, trans_b| Op::QGemm(op::QGemm { alpha: 0.7, trans_a, trans_b });
        let mut inputs = quantized_operands();
        inputs.push(tensor(&[2], [100i32, -40]));
        let plain: Vec<&Tensor> = inputs.iter().collect();
        let floats = output(&op(false, false), &plain);
        assert_eq!(floats, Ok(tensor(&[2, 2], [2.786_056_f32, 8.323, 1.220_856_1, -217.553])));
        let (y_scale, y_zero) = (Tensor::scalar(0.9f32), Tensor::scalar(9u8));
        let expected = Ok(tensor(&[2, 2], [12u8, 18, 10, 0]));
        assert_eq!(output(&op(false, false), &[&plain[..], &[&y_scale, &y_zero]].concat()), expected);
        inputs[0] = tensor(&[3, 2], [0u8, 200, 3, 255, 128, 7]);
        inputs[3] = tensor(&[2, 3], [1i8, 30, 127, -2, -128, 5]);
        let transposed: Vec<&Tensor> = inputs.iter().chain([&y_scale, &y_zero]).collect();
        assert_eq!(output(&op(true, true), &transposed), expected);
    }

    #[test]
    fn weights_of_few_bits_are_unpacked_by_block() {
        let op = |k| op::MatMulNBits { k, n: 2, bits: 4, block_size: 16, accuracy_level: 0, weight_prepacked: 0 };
        let packed = [[0x21u8, 0x43, 0, 0, 0, 0, 0, 0]; 2].concat();
        let (a, packed) = (tensor(&[1, 3], [1f32, 2.0, 3.0]), tensor(&[2, 1, 8], &packed));
        let scales = tensor(&[2, 1], [0.5f32, 2.0]);
        let product = output(&Op::MatMulNBits(op(3)), &[&a, &packed, &scales]);
        assert_eq!(product, Ok(tensor(&[1, 2], [-17f32, -68.0])));
        let zero_points = tensor(&[2], [0u8, 1]);
        let bias = tensor(&[2], [10f32, 20.0]);
        let inputs = [&a, &packed, &scales, &zero_points].map(|tensor| Some(tensor.clone()));
        let product = optional_output(&Op::MatMulNBits(op(3)), &[&inputs[..], &[None, Some(bias)]].concat());
        assert_eq!(product, Ok(tensor(&[1, 2], [17f32, 36.0])));
        let wrong = output(&Op::MatMulNBits(op(17)), &[&a, &packed, &scales]).expect_err("two blocks");
        assert_eq!(wrong.to_string(), "MatMulNBits: weights of shape [2, 1, 8] for K = 17, N = 2");
        let groups = tensor(&[3], [0i32, 1, 0]);
        let inputs = [&a, &packed, &scales].map(|tensor| Some(tensor.clone()));
        let outside = optional_output(&Op::MatMulNBits(op(3)), &[&inputs[..], &[None, Some(groups)]].concat());
        assert_eq!(outside.expect_err("one block").to_string(), "g_idx should be 3 of 1 blocks");
    }
}
