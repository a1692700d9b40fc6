//! Weights by blocks behind com.microsoft's `MatMulNBits`, which multiplies by them as they are: onnxruntime reads a quarter or an
//! eighth of the bytes from memory, and never makes a whole matrix of floats.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::QuantizeError;
use super::dense::{Dense, Key, Narrowed};
use super::insert::named;
use super::parameters::{Parameters, QuantizedConstant, quantize_constant, with_parameters};
use super::plan::{Float, WeightSite};
use super::scheme::{Granularity, Scheme, Weights};
use super::weights::store_others;
use crate::graph::op::{self, Op};
use crate::graph::patch::Patch;
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor, TensorError, turned};
use crate::graph::{Graph, Name, Node};

/// Sizes of blocks that onnxruntime has kernels for.
pub const BLOCKS: [usize; 5] = [16, 32, 64, 128, 256];

/// The accuracy level where nobody says: activations as integers of eight bits. With activations in floats onnxruntime took 1.07 times
/// as long on a transformer of 64 tokens as with weights in floats, so 0.87 times.
pub const USUAL_LEVEL: i64 = 4;

/// Scales and zero points of matrices that lie on their grids already, by constant, the axis that is summed over, and how it is
/// quantized.
pub type Grids = HashMap<(Name, usize, Weights), Vec<Parameters>>;

/// The matrices that [`mat_mul_n_bits`] puts into blocks as they are, so that their rounding can be learned before.
///
/// # Errors
/// When the scheme cannot be carried out.
pub fn sites(graph: &Graph, types: &Types, scheme: &Scheme) -> Result<Vec<WeightSite>, QuantizeError> {
    scheme.check()?;
    let site = |(node_idx, node): (usize, &Node)| {
        let weights = scheme.weights_of(node);
        block_of(weights).ok()?;
        let Dense { key: (name, is_transposed, alpha), weight, .. } = Dense::of(graph, types, node).ok()?;
        let is_plain = weight.rank() == 2 && alpha == 1f32.to_bits() && !weight.is_empty();
        let axis = Some(usize::from(is_transposed));
        is_plain.then_some(WeightSite { node_idx, position: 1, name, axis, weights })
    };
    let products = graph.nodes.iter().enumerate().filter(|(_, node)| matches!(node.op, Op::MatMul | Op::Gemm(_)));
    Ok(products.filter(|(_, node)| scheme.excludes(node).is_none()).filter_map(site).collect())
}

/// A simplified network whose products with a constant matrix read it by blocks of integers. What else has weights keeps them
/// narrow in the file and computes in floats. `accuracy_level` is the type that the runtime may round activations to: 0 leaves that
/// to it, 1 is `f32`, 4 integers of eight bits. A matrix without a grid gets the nearest integers.
///
/// # Errors
/// When the scheme cannot be carried out, one of its patterns means no node, or there is no such product.
pub fn mat_mul_n_bits(
    graph: &Graph,
    types: &Types,
    scheme: &Scheme,
    accuracy_level: i64,
    grids: &Grids,
) -> Result<Narrowed, QuantizeError> {
    scheme.check()?;
    if let Some(pattern) = scheme.idle_patterns(&graph.nodes).first() {
        return Err(QuantizeError::Pattern { pattern: pattern.to_string() });
    }
    let mut patch = Patch::new(graph);
    let mut made: HashMap<Key, Packed> = HashMap::new();
    let (mut integer, mut float) = (Vec::new(), Vec::new());
    let products = graph.nodes.iter().enumerate().filter(|(_, node)| matches!(node.op, Op::MatMul | Op::Gemm(_)));
    for (node_idx, node) in products {
        let mut lowered = || {
            if let Some(pattern) = scheme.excludes(node) {
                return Err(format!("excluded by `{pattern}`"));
            }
            let weights = scheme.weights_of(node);
            let block = block_of(weights)?;
            let dense = Dense::of(graph, types, node)?;
            if dense.weight.rank() != 2 {
                return Err("its constant is no matrix".to_string());
            }
            let key = (dense.key.clone(), weights);
            let packed = match made.get(&key) {
                Some(packed) => packed.clone(),
                None => {
                    let packed = Packed::of(&mut patch, &dense, weights, block, grids)?;
                    made.insert(key, packed.clone());
                    packed
                }
            };
            Ok(packed.product(&mut patch, node, &dense, accuracy_level))
        };
        match lowered() {
            Ok(nodes) => {
                patch.replace(node_idx, nodes);
                integer.push(node_idx);
            }
            Err(reason) => float.push(Float { node: node.label(), reason }),
        }
    }
    let n_weights = integer.len() + store_others(&mut patch, graph, types, scheme, &integer)?;
    patch.remove_unused_initializers();
    Narrowed { graph: patch.apply(Some(types))?, integer, n_weights, float }.checked()
}

/// The size of the blocks of these weights; in words why there are none.
pub(super) fn block_of(weights: Weights) -> Result<usize, String> {
    let block = match weights.granularity {
        Granularity::Block(block) if BLOCKS.contains(&block) => block,
        Granularity::Block(_) | Granularity::Tensor | Granularity::Channel => {
            return Err(format!("its weights are to have scales by other than blocks of {BLOCKS:?}"));
        }
    };
    match weights.dtype.n_bits() {
        4 | 8 => Ok(block),
        n_bits => Err(format!("its weights are to have {n_bits} bits, not 4 or 8")),
    }
}

/// A matrix as it stands in the file.
#[derive(Clone)]
struct Packed {
    attributes: op::MatMulNBits,
    integers: Name,
    scales: Name,
    /// None for the middle of the range.
    zero_points: Option<Name>,
}

impl Packed {
    fn of(patch: &mut Patch, dense: &Dense, weights: Weights, block: usize, grids: &Grids) -> Result<Packed, String> {
        let problem = |error: TensorError| error.to_string();
        let &[n_inner, n_columns] = dense.weight.shape() else { return Err("its constant is no matrix".to_string()) };
        if n_inner == 0 || n_columns == 0 {
            return Err("its constant is empty".to_string());
        }
        let n_blocks = n_inner.div_ceil(block);
        let (name, is_transposed, alpha) = &dense.key;
        let quantized =
            match grids.get(&(name.clone(), usize::from(*is_transposed), weights)).filter(|_| *alpha == 1f32.to_bits())
            {
                None => quantize_constant(&dense.weight, Some(0), weights),
                Some(grid) => {
                    let grid = if *is_transposed { &turned(grid, n_columns, n_blocks) } else { grid };
                    with_parameters(&dense.weight, Some(0), weights, grid)
                }
            };
        let quantized = quantized.map_err(problem)?;
        let (integers, zero_points) = unsigned(&quantized)?;
        let scales = quantized.scales.to_vec::<f32>().map_err(problem)?;
        let n_bits = usize::try_from(weights.dtype.n_bits()).expect("4 or 8");
        let columns = Columns { n_columns, n_bits };
        // Behind the last row stands what is zero in its block.
        let zeros = zero_points[(n_blocks - 1) * n_columns..].to_vec();
        let integers = columns.packed(&integers, n_inner, n_blocks * block, &zeros);
        let zero_points = columns.packed(&zero_points, n_blocks, n_blocks, &zeros);
        let scales = turned(&scales, n_blocks, n_columns);
        let size = |size: usize| i64::try_from(size).map_err(|_| "its constant is too large".to_string());
        let mut add = |what: &str, tensor: Result<Tensor, TensorError>| {
            tensor.map(|tensor| patch.add_initializer(&format!("{name}_{what}"), tensor)).map_err(problem)
        };
        Ok(Packed {
            attributes: op::MatMulNBits {
                k: size(n_inner)?,
                n: size(n_columns)?,
                bits: size(n_bits)?,
                block_size: size(block)?,
                accuracy_level: 0,
                weight_prepacked: 0,
            },
            integers: add("quantized", Tensor::new(&[n_columns, n_blocks, block * n_bits / 8], integers))?,
            scales: add("scale", Tensor::new(&[n_columns, n_blocks], scales))?,
            zero_points: match weights.symmetric {
                true => None,
                false => {
                    let shape = [n_columns, zero_points.len() / n_columns];
                    Some(add("zero_point", Tensor::new(&shape, zero_points))?)
                }
            },
        })
    }

    /// The product, and what adds its bias.
    fn product(&self, patch: &mut Patch, node: &Node, dense: &Dense, accuracy_level: i64) -> Vec<Node> {
        let bias = dense.bias.as_ref().map(|bias| bias.name(patch));
        let output = node.output(0).cloned().unwrap_or_else(|| patch.fresh("product"));
        let product = if bias.is_some() { patch.fresh(&format!("{output}_product")) } else { output.clone() };
        let mut inputs = vec![&dense.activation, &self.integers, &self.scales];
        inputs.extend(&self.zero_points);
        let inputs = inputs.into_iter().map(|name| Some(name.clone())).collect();
        let op = Op::MatMulNBits(op::MatMulNBits { accuracy_level, ..self.attributes.clone() });
        let mut nodes = vec![named(op, inputs, &product)];
        nodes.extend(bias.map(|bias| named(Op::Add, vec![Some(product), Some(bias)], &output)));
        if let Some(last) = nodes.last_mut() {
            last.name.clone_from(&node.name);
            last.notes.clone_from(&node.notes);
        }
        nodes
    }
}

/// Integers and zero points of a constant without signs: from 0 up.
fn unsigned(quantized: &QuantizedConstant) -> Result<(Vec<u8>, Vec<u8>), String> {
    let shifted = |tensor: &Tensor| {
        let bytes = tensor.bytes().ok_or("integers have bytes")?;
        Ok(match tensor.dtype() {
            DType::I8 => bytes.iter().map(|&q| q ^ 0x80).collect(),
            DType::U8 => bytes.to_vec(),
            DType::I4 => nibbles(bytes, tensor.len()).map(|q| q ^ 8).collect(),
            DType::U4 => nibbles(bytes, tensor.len()).collect(),
            other => return Err(format!("weights of {other} have no form by blocks")),
        })
    };
    Ok((shifted(&quantized.integers)?, shifted(&quantized.zero_points)?))
}

fn nibbles(bytes: &[u8], len: usize) -> impl Iterator<Item = u8> {
    bytes.iter().flat_map(|&byte| [byte & 15, byte >> 4]).take(len)
}

/// The columns of a row-major matrix, one after the other.
struct Columns {
    n_columns: usize,
    n_bits: usize,
}

impl Columns {
    /// Each column filled up to so many rows, its integers packed from the lowest bits up.
    fn packed(&self, integers: &[u8], n_rows: usize, n_padded: usize, filler: &[u8]) -> Vec<u8> {
        let at = |row: usize, column: usize| {
            if row < n_rows { integers[row * self.n_columns + column] } else { filler[column] }
        };
        let n_together = 8 / self.n_bits;
        let mut bytes = Vec::with_capacity(self.n_columns * n_padded.div_ceil(n_together));
        for column in 0..self.n_columns {
            for row in (0..n_padded).step_by(n_together) {
                let byte = (0..n_together.min(n_padded - row))
                    .fold(0, |byte, offset| byte | (at(row + offset, column) << (offset * self.n_bits)));
                bytes.push(byte);
            }
        }
        bytes
    }
}
