//! Matrix products of bytes.

use rayon::prelude::*;

use super::operands::Bytes;
use super::weights::Packed;
use crate::graph::tensor::{n_elements, turned};

/// Rows that one thread takes at a time.
const N_ROWS: usize = 64;

/// The sums of a stack of products, and their shape.
pub(super) struct Sums {
    pub(super) sums: Vec<i32>,
    pub(super) shape: Vec<usize>,
    pub(super) n_saturated: u64,
    pub(super) n_pairs: u64,
}

/// How a stack of matrices of weights lies, once packed.
pub(super) struct Stack<'a> {
    pub(super) matrices: &'a [Packed],
    /// The dimensions of the stack; none for a single matrix.
    pub(super) dims: &'a [usize],
}

/// The matrices of a tensor of weights `[…, depth, n_outputs]`, or `[…, n_outputs, depth]` where `transposed`.
pub(super) fn pack(
    weights: &[i32],
    shape: &[usize],
    transposed: bool,
    zero_points: &[i32],
    saturating: bool,
) -> Result<Vec<Packed>, String> {
    let &[.., rows, columns] = shape else { return Err(format!("weights of shape {shape:?} are no matrix")) };
    if rows * columns == 0 {
        return Err(format!("weights of shape {shape:?} are empty"));
    }
    let (depth, n_outputs) = if transposed { (columns, rows) } else { (rows, columns) };
    if zero_points.len() > 1 && (zero_points.len() != n_outputs || shape.len() > 2) {
        return Err(format!("{} zero points for {n_outputs} columns", zero_points.len()));
    }
    let matrix = |weights: &[i32]| {
        let outputs = if transposed { weights.to_vec() } else { turned(weights, rows, columns) };
        Packed::new(&outputs, depth, zero_points, saturating)
    };
    Ok(weights.chunks_exact(rows * columns).map(matrix).collect())
}

/// `A · B` as `numpy.matmul` has it, `B` a matrix or more.
pub(super) fn product(a: &Bytes, b: &Stack<'_>) -> Result<Sums, String> {
    let Some(first) = b.matrices.first() else { return Err("a stack of no matrices".to_string()) };
    let (depth, n_outputs) = (first.depth, first.n_outputs);
    let (dims, rows) = match a.shape[..] {
        [k] if k == depth => (&[][..], None),
        [ref dims @ .., rows, k] if k == depth => (dims, Some(rows)),
        _ => return Err(format!("a product of {:?} and matrices of {depth} rows", a.shape)),
    };
    let n_rows = rows.unwrap_or(1);
    let stack = broadcast(dims, b.dims).ok_or_else(|| format!("stacks of {dims:?} and {:?} matrices", b.dims))?;
    let shape: Vec<usize> = stack.iter().copied().chain(rows).chain([n_outputs]).collect();
    let n_stacked: usize = stack.iter().product();
    let mut sums = vec![0; room(&shape)?];
    // One matrix for all rows, however they are stacked: then they are one matrix, too.
    let (n_products, n_rows) = if b.matrices.len() == 1 { (1, n_stacked * n_rows) } else { (n_stacked, n_rows) };
    let mut n_saturated = 0;
    for (place, sums) in (0..n_products).zip(sums.chunks_mut((n_rows * n_outputs).max(1))) {
        let (a_at, b_at) = match n_products {
            1 => (0, 0),
            _ => (source(place, &stack, dims), source(place, &stack, b.dims)),
        };
        let packed = b.matrices.get(b_at).ok_or("a stack lacks a matrix")?;
        let rows = a.bytes.get(a_at * n_rows * depth..).unwrap_or_default();
        let pieces = sums.par_chunks_mut(N_ROWS * n_outputs).zip(rows.par_chunks(N_ROWS * depth));
        let saturated = pieces.map(|(sums, rows)| {
            let n_rows = sums.len() / n_outputs;
            packed.sums(&rows[..n_rows * depth], a.zero_point, sums)
        });
        n_saturated += saturated.sum::<u64>();
    }
    let n_pairs = (n_products * n_rows) as u64 * first.saturable.n_all as u64;
    Ok(Sums { sums, shape, n_saturated, n_pairs })
}

/// The elements of a result, where there are not more than a machine holds.
pub(super) fn room(shape: &[usize]) -> Result<usize, String> {
    const MOST: usize = 1 << 31;
    let n_elements = n_elements(shape).filter(|&n_elements| n_elements <= MOST);
    n_elements.ok_or_else(|| format!("a result of shape {shape:?} is too large"))
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis]);
    let joint = |axis: usize| match (size(a, axis), size(b, axis)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (0..rank).map(joint).collect()
}

/// Where a place of a broadcast stack comes from in one of these dimensions.
fn source(place: usize, stack: &[usize], dims: &[usize]) -> usize {
    let (mut rest, mut source, mut stride) = (place, 0, 1);
    for (back, &size) in stack.iter().rev().enumerate() {
        let index = rest % size.max(1);
        rest /= size.max(1);
        if let Some(own) = dims.len().checked_sub(back + 1).map(|axis| dims[axis]) {
            source += if own == 1 { 0 } else { index * stride };
            stride *= own;
        }
    }
    source
}
