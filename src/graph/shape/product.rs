//! Matrix products: inner dimensions must agree, outer ones stay, leading ones are broadcast.

use super::dims::{self, Shape, expect_agreement};
use super::einsum::{Label, Notation};
use super::fact::{Call, Fact, Outputs, Problem, one, problem};
use crate::graph::Dim;
use crate::graph::op::Op;
use crate::graph::tensor::DType;

/// `MatMul`
pub(super) fn mat_mul(call: &Call<'_>) -> Outputs {
    one(call.same_dtype(0..2)?, matrix_product(call, 0, 1)?)
}

/// `MatMulInteger`
pub(super) fn mat_mul_integer(call: &Call<'_>) -> Outputs {
    one(Some(DType::I32), matrix_product(call, 0, 1)?)
}

/// `QLinearMatMul`: to the type of the output's zero point.
pub(super) fn qlinear_mat_mul(call: &Call<'_>) -> Outputs {
    one(call.dtype(7), matrix_product(call, 0, 3)?)
}

/// Numpy's `matmul` of the inputs at these positions.
fn matrix_product(call: &Call<'_>, left: usize, right: usize) -> Result<Shape, Problem> {
    let (Some(a), Some(b)) = (call.dims(left), call.dims(right)) else { return Ok(None) };
    let (Some((a_last, a_rest)), Some((b_last, b_rest))) = (a.split_last(), b.split_last()) else {
        return Err(problem("the number of dimensions", "1 or more", 0));
    };
    let (columns, b_inner, b_batch) = match b_rest.split_last() {
        Some((inner, batch)) => (Some(b_last), inner, batch),
        None => (None, b_last, &[][..]),
    };
    let (row, a_batch) = match a_rest.split_last() {
        Some((row, batch)) => (Some(row), batch),
        None => (None, &[][..]),
    };
    expect_agreement("the inner dimension", a_last, b_inner)?;
    let batch = dims::broadcast(Some(a_batch), Some(b_batch))?;
    Ok(batch.map(|batch| batch.into_iter().chain(row.cloned()).chain(columns.cloned()).collect()))
}

/// `Gemm`: `[m, k] · [k, n] + C`.
pub(super) fn gemm(call: &Call<'_>) -> Outputs {
    let Op::Gemm(attributes) = call.op else { return one(None, None) };
    let dims = general_product(call, [0, 1, 2], attributes.trans_a, attributes.trans_b)?;
    one(call.same_dtype(0..3)?, Some(dims))
}

/// `QGemm`: to the type of the output's zero point, else `f32`.
pub(super) fn q_gemm(call: &Call<'_>) -> Outputs {
    let Op::QGemm(attributes) = call.op else { return one(None, None) };
    let dims = general_product(call, [0, 3, 6], attributes.trans_a, attributes.trans_b)?;
    one(if call.has(8) { call.dtype(8) } else { Some(DType::F32) }, Some(dims))
}

fn general_product(call: &Call<'_>, [a, b, c]: [usize; 3], trans_a: bool, trans_b: bool) -> Result<Vec<Dim>, Problem> {
    call.expect_rank(a, 2)?;
    call.expect_rank(b, 2)?;
    let (row_axis, column_axis) = (usize::from(trans_a), usize::from(!trans_b));
    expect_agreement("the inner dimension", &call.dim(a, 1 - row_axis), &call.dim(b, 1 - column_axis))?;
    let product = vec![call.dim(a, row_axis), call.dim(b, column_axis)];
    if let Some(addend) = call.dims(c) {
        let sum = dims::broadcast(Some(&product), Some(addend))?;
        if sum.as_ref().is_some_and(|sum| sum.len() > 2) {
            return Err(problem("the number of dimensions of `C`", "at most 2", addend.len()));
        }
        for (axis, dim) in sum.iter().flatten().enumerate() {
            expect_agreement("`C` broadcast to the product", &product[axis], dim)?;
        }
    }
    Ok(product)
}

/// `MatMulNBits`: `[…, K] · [K, N]`, the weight packed.
pub(super) fn mat_mul_n_bits(call: &Call<'_>) -> Outputs {
    let (Op::MatMulNBits(attributes), Some(mut dims)) = (call.op, call.shape(0)) else {
        return one(call.dtype(0), None);
    };
    let size = |size: i64| usize::try_from(size).map_or(Dim::Unknown, Dim::Known);
    let Some(last) = dims.last_mut() else {
        return Err(problem("the number of dimensions", "1 or more", 0));
    };
    expect_agreement("`K`", last, &size(attributes.k))?;
    *last = size(attributes.n);
    one(call.dtype(0), Some(dims))
}

/// `Einsum`
pub(super) fn einsum(call: &Call<'_>) -> Outputs {
    let Op::Einsum(attributes) = call.op else { return one(None, None) };
    let positions = 0..call.inputs.len();
    let dtype = call.same_dtype(positions.clone())?;
    let shapes: Option<Vec<&[Dim]>> = positions.map(|position| call.dims(position)).collect();
    let Some(shapes) = shapes else { return one(dtype, None) };
    let notation = Notation::parse(&attributes.equation)?;
    let sizes = notation.sizes(&shapes)?;
    one(dtype, Some(notation.output.iter().flat_map(|label| label_dims(&sizes, *label)).collect()))
}

fn label_dims(sizes: &super::einsum::Sizes, label: Label) -> Vec<Dim> {
    match label {
        Label::Letter(letter) => vec![sizes.letters.get(&letter).cloned().unwrap_or(Dim::Unknown)],
        Label::Ellipsis => sizes.ellipsis.clone(),
    }
}

/// `Attention`: the output, keys and values with those of the past, and the scores.
pub(super) fn attention(call: &Call<'_>) -> Outputs {
    let Op::Attention(attributes) = call.op else { return one(None, None) };
    let dtype = call.same_dtype(0..2)?;
    let rank = call.dims(0).map(<[Dim]>::len);
    let (Some(query), Some(key), Some(value)) = (
        heads(call, 0, attributes.q_num_heads)?,
        heads(call, 1, attributes.kv_num_heads)?,
        heads(call, 2, attributes.kv_num_heads)?,
    ) else {
        return Ok([dtype, call.dtype(1), call.dtype(2), dtype].map(|dtype| Fact::new(dtype, None)).to_vec());
    };
    let [batch, query_heads, query_length, head_size] = query;
    let [_, key_heads, key_length, key_size] = key;
    let [_, value_heads, value_length, value_size] = value;
    expect_agreement("the size of a key's head", &head_size, &key_size)?;
    expect_agreement("the number of values", &key_length, &value_length)?;
    let total = if call.has(4) { dims::sum([&call.dim(4, 2), &key_length]) } else { key_length };
    let output = if rank == Some(3) {
        vec![batch.clone(), query_length.clone(), dims::product([&query_heads, &value_size])]
    } else {
        vec![batch.clone(), query_heads.clone(), query_length.clone(), value_size.clone()]
    };
    let present = |heads, size| Some(vec![batch.clone(), heads, total.clone(), size]);
    Ok(vec![
        Fact::new(dtype, Some(output)),
        Fact::new(call.dtype(1), present(key_heads, key_size)),
        Fact::new(call.dtype(2), present(value_heads, value_size)),
        Fact::new(dtype, Some(vec![batch.clone(), query_heads, query_length, total.clone()])),
    ])
}

/// `[batch, heads, length, size]` of an input that may also be `[batch, length, heads · size]`; none where its number of
/// dimensions is unknown.
fn heads(call: &Call<'_>, position: usize, n_heads: Option<i64>) -> Result<Option<[Dim; 4]>, Problem> {
    match call.dims(position) {
        None => Ok(None),
        Some([batch, heads, length, size]) => Ok(Some([batch, heads, length, size].map(Dim::clone))),
        Some([batch, length, hidden]) => {
            let n_heads = n_heads.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
            let Some(n_heads) = n_heads else {
                return Err(problem("`q_num_heads` and `kv_num_heads`", "given for inputs of 3 dimensions", "none"));
            };
            let size = dims::quotient(std::slice::from_ref(hidden), &[Dim::Known(n_heads)])?;
            Ok(Some([batch.clone(), Dim::Known(n_heads), length.clone(), size]))
        }
        Some(dims) => Err(problem(format!("the number of dimensions of input {position}"), "3 or 4", dims.len())),
    }
}
