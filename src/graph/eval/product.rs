//! Matrix products: MatMul and Gemm, and what they and Einsum need of numbers.

use super::args::{Args, allocation};
use super::numbers::Numbers;
use super::shapes::{broadcast, broadcast_positions};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{Tensor, turned};

pub(super) fn matmul(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    same_type(a, b)?;
    let (product, shape) = matrix_products(&Numbers::of(a)?, a.shape(), &Numbers::of(b)?, b.shape())?;
    product.into_tensor(a.dtype(), &shape)
}

fn same_type(a: &Tensor, b: &Tensor) -> Result<(), EvalError> {
    if a.dtype() != b.dtype() {
        return Err(invalid(format!("a product of {} and {}", a.dtype(), b.dtype())));
    }
    Ok(())
}

/// The products of two stacks of matrices, as `numpy.matmul` has them: the stacks broadcast, a vector on the left is a
/// row and one on the right a column, whose axis the result lacks. With their shape.
///
/// # Errors
/// When the shapes do not fit, and when one holds integers and the other floats.
fn matrix_products(
    a: &Numbers,
    a_shape: &[usize],
    b: &Numbers,
    b_shape: &[usize],
) -> Result<(Numbers, Vec<usize>), EvalError> {
    let mismatch = || invalid(format!("a product of shapes {a_shape:?} and {b_shape:?}"));
    let (a_stack, rows, k) = match a_shape {
        [] => return Err(mismatch()),
        &[k] => (&[][..], None, k),
        [stack @ .., rows, k] => (stack, Some(*rows), *k),
    };
    let (b_stack, b_k, columns) = match b_shape {
        [] => return Err(mismatch()),
        &[k] => (&[][..], k, None),
        [stack @ .., k, columns] => (stack, *k, Some(*columns)),
    };
    if k != b_k {
        return Err(mismatch());
    }
    let stack = broadcast(&[a_stack, b_stack]).map_err(|_| mismatch())?;
    let (m, n) = (rows.unwrap_or(1), columns.unwrap_or(1));
    let shape: Vec<usize> = stack.iter().copied().chain(rows).chain(columns).collect();
    let pairs = if allocation(&shape)? == 0 {
        Vec::new()
    } else {
        broadcast_positions(a_stack, &stack)?.into_iter().zip(broadcast_positions(b_stack, &stack)?).collect()
    };
    let product = match (a, b) {
        (Numbers::Float(a), Numbers::Float(b)) => Numbers::Float(products(a, b, &pairs, [m, k, n])),
        (Numbers::Int(a), Numbers::Int(b)) => Numbers::Int(products(a, b, &pairs, [m, k, n])),
        (Numbers::Float(_), Numbers::Int(_)) | (Numbers::Int(_), Numbers::Float(_)) => return Err(mismatch()),
    };
    Ok((product, shape))
}

/// What products need of a number.
pub(super) trait Number: Copy {
    /// What a sum starts with.
    const ZERO: Self;
    /// The neutral factor.
    const ONE: Self;
    /// `self + a * b`; of integers the low 64 bits count, which wrapping keeps.
    fn plus_product(self, a: Self, b: Self) -> Self;
}

impl Number for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;

    fn plus_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Number for i128 {
    const ZERO: i128 = 0;
    const ONE: i128 = 1;

    fn plus_product(self, a: i128, b: i128) -> i128 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// The products of the matrices of `a` (`[m, k]`) and of `b` (`[k, n]`) that the pairs number.
fn products<T: Number>(a: &[T], b: &[T], pairs: &[(usize, usize)], [m, k, n]: [usize; 3]) -> Vec<T> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let mut products = vec![T::ZERO; pairs.len() * m * n];
    for (product, &(a_at, b_at)) in products.chunks_mut(m * n).zip(pairs) {
        let (a, b) = (&a[a_at * m * k..][..m * k], &b[b_at * k * n..][..k * n]);
        for (row, sums) in product.chunks_mut(n).enumerate() {
            for (along, weights) in b.chunks(n).enumerate() {
                let factor = a[row * k + along];
                for (sum, &weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.plus_product(factor, weight);
                }
            }
        }
    }
    products
}

/// Integers are multiplied exactly by an `alpha` and a `beta` that are whole, and not at all by others.
pub(super) fn gemm(args: Args<'_>, op: &op::Gemm) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    let (a_numbers, a_shape) = matrix(a, op.trans_a)?;
    let (b_numbers, b_shape) = matrix(b, op.trans_b)?;
    same_type(a, b)?;
    let (product, shape) = matrix_products(&a_numbers, &a_shape, &b_numbers, &b_shape)?;
    let c = match args.optional(2) {
        Some(c) => {
            same_type(a, c)?;
            Some((Numbers::of(c)?, broadcast_positions(c.shape(), &shape)?))
        }
        None => None,
    };
    // As in BLAS, `beta` 0 means that C does not count, whatever it holds.
    let c = c.filter(|_| op.beta != 0.0);
    let (alpha, beta) = (f64::from(op.alpha), f64::from(op.beta));
    let sum = match (product, c) {
        (Numbers::Float(product), None) => Numbers::Float(product.into_iter().map(|x| alpha * x).collect()),
        (Numbers::Float(product), Some((Numbers::Float(c), at))) => {
            Numbers::Float(product.into_iter().zip(at).map(|(x, at)| alpha * x + beta * c[at]).collect())
        }
        (Numbers::Int(_), _) if alpha.fract() != 0.0 || beta.fract() != 0.0 => {
            return Err(EvalError::Undefined(format!("Gemm on {} with a fractional alpha or beta", a.dtype())));
        }
        (Numbers::Int(product), None) => {
            Numbers::Int(product.into_iter().map(|x| x.wrapping_mul(alpha as i128)).collect())
        }
        (Numbers::Int(product), Some((Numbers::Int(c), at))) => {
            let scaled = |(x, at): (i128, usize)| x.wrapping_mul(alpha as i128).plus_product(beta as i128, c[at]);
            Numbers::Int(product.into_iter().zip(at).map(scaled).collect())
        }
        (Numbers::Float(_), Some(_)) | (Numbers::Int(_), Some(_)) => return Err(args.undefined(a.dtype())),
    };
    sum.into_tensor(a.dtype(), &shape)
}

/// A matrix's elements, transposed if asked, with its shape.
fn matrix(tensor: &Tensor, transposed: bool) -> Result<(Numbers, [usize; 2]), EvalError> {
    let &[rows, columns] = tensor.shape() else {
        return Err(invalid(format!("expected a matrix, got shape {:?}", tensor.shape())));
    };
    let numbers = Numbers::of(tensor)?;
    if !transposed {
        return Ok((numbers, [rows, columns]));
    }
    let turned = match numbers {
        Numbers::Float(elements) => Numbers::Float(turned(&elements, rows, columns)),
        Numbers::Int(elements) => Numbers::Int(turned(&elements, rows, columns)),
    };
    Ok((turned, [columns, rows]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{check, iota, list, refusal, tensor};
    use crate::graph::op::{Gemm, Op};

    #[test]
    fn matmul_broadcasts_stacks_and_takes_vectors() {
        check(Op::MatMul, [iota(&[2, 3]), iota(&[3, 2])], tensor(&[2, 2], [10i64, 13, 28, 40]));
        check(Op::MatMul, [iota(&[2]), iota(&[2, 2])], list([2, 3]));
        check(Op::MatMul, [iota(&[2, 2]), iota(&[2])], list([1, 3]));
        check(Op::MatMul, [iota(&[3]), iota(&[3])], Tensor::scalar(5i64));
        check(Op::MatMul, [iota(&[2, 1, 1, 2]), iota(&[2, 2, 1])], tensor(&[2, 2, 1, 1], [1i64, 3, 3, 13]));
        check(Op::MatMul, [iota(&[2, 0]), iota(&[0, 1])], tensor(&[2, 1], [0i64, 0]));
        check(
            Op::MatMul,
            [Tensor::vector(vec![1e8f32, 1.0, -1e8]), Tensor::vector(vec![1f32; 3])],
            Tensor::scalar(1f32),
        );
        let halves = [u64::MAX, 2].map(|x| tensor(&[1, 1], [x]));
        check(Op::MatMul, halves, tensor(&[1, 1], [u64::MAX - 1]));
        assert_eq!(refusal(Op::MatMul, [iota(&[2]), iota(&[3])]), "a product of shapes [2] and [3]");
        assert_eq!(refusal(Op::MatMul, [iota(&[]), iota(&[1])]), "a product of shapes [] and [1]");
        assert!(refusal(Op::MatMul, [iota(&[2, 1, 1]), iota(&[3, 1, 1])]).contains("a product of shapes"));
        assert_eq!(refusal(Op::MatMul, [list([1]), Tensor::vector(vec![1f32])]), "a product of i64 and f32");
    }

    #[test]
    fn gemm_turns_scales_and_adds() {
        let gemm = |alpha, beta, trans_a, trans_b| Op::Gemm(Gemm { alpha, beta, trans_a, trans_b });
        let (a, b) = (|| tensor(&[1, 2], [1f32, 2.0]), || tensor(&[2, 1], [3f32, 4.0]));
        check(gemm(1.0, 1.0, false, false), [a(), b()], tensor(&[1, 1], [11f32]));
        check(gemm(1.0, 1.0, true, true), [a(), b()], tensor(&[2, 2], [3f32, 4.0, 6.0, 8.0]));
        check(
            gemm(0.5, 2.0, true, true),
            [a(), b(), Tensor::vector(vec![1f32, 2.0])],
            tensor(&[2, 2], [3.5, 6.0, 5.0, 8f32]),
        );
        check(gemm(1.0, 0.0, false, false), [a(), b(), Tensor::scalar(f32::NAN)], tensor(&[1, 1], [11f32]));
        let ints = || [iota(&[1, 2]), iota(&[2, 1]), list([5])];
        check(gemm(2.0, -1.0, false, false), ints(), tensor(&[1, 1], [-3i64]));
        assert!(refusal(gemm(0.5, 1.0, false, false), ints()).contains("fractional alpha"));
        let tall = Tensor::vector(vec![1f32, 2.0]);
        assert!(refusal(gemm(1.0, 1.0, false, false), [a(), b(), tall]).contains("does not broadcast"));
        assert!(refusal(gemm(1.0, 1.0, false, false), [iota(&[2]), iota(&[2])]).contains("expected a matrix"));
    }
}
