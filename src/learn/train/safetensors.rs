//! Weights by name as safetensors, as candle, PyTorch and Hugging Face write and read them.
//!
//! A file has the parameters and running statistics of a graph under the names of their initializers; which these are,
//! see [`super::roles`]. A matrix that the graph reads as `[in, out]`, by a MatMul or a Gemm, is `[out, in]` in the
//! file, as a linear layer of PyTorch and candle has it. Everything else has the layout of the graph.

use bytes::Bytes;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use super::floats::{numbers, tensor_of};
use super::roles::{Role, roles};
use crate::graph::patch::{Patch, PatchError};
use crate::graph::shape::{Bindings, ShapeError, infer};
use crate::graph::tensor::{DType, Tensor, TensorError};
use crate::graph::{Graph, Name, Op};

/// Why weights are not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The bytes are no safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] SafeTensorError),
    /// The file lacks tensors that the network has.
    #[error(
        "the file has no tensor `{name}` ({n_missing} missing); its names must be those of the network's initializers"
    )]
    Missing {
        /// the first of them
        name: String,
        /// how many there are
        n_missing: usize,
    },
    /// The file has tensors that the network has not.
    #[error("the network has no initializer `{name}` ({n_unexpected} unexpected); leave it out of the file")]
    Unexpected {
        /// the first of them
        name: String,
        /// how many there are
        n_unexpected: usize,
    },
    /// A tensor has another shape than the network's.
    #[error("tensor `{name}` has the shape {got:?}, the network takes {expected:?}")]
    Shape {
        /// the tensor
        name: String,
        /// in the file's layout
        expected: Vec<usize>,
        /// what the file has
        got: Vec<usize>,
    },
    /// A tensor has an element type that weights do not have.
    #[error("tensor `{name}` is of {got:?}; save it as F32, F64, F16 or BF16")]
    Type {
        /// the tensor
        name: String,
        /// its type
        got: Dtype,
    },
    /// The network's types do not fit together.
    #[error(transparent)]
    Graph(#[from] ShapeError),
    /// The weights cannot be put in.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The weights of a graph as the bytes of a file; the same for the same weights.
///
/// # Errors
/// When the graph's types do not fit together.
pub fn to_bytes(graph: &Graph) -> Result<Vec<u8>, ExchangeError> {
    let mut tensors = Vec::new();
    for Exchanged { name, tensor, is_transposed } in exchanged(graph)? {
        let tensor = if is_transposed { transposed(tensor)? } else { tensor.clone() };
        tensors.push((name, tensor));
    }
    let views = tensors.iter().map(|(name, tensor)| {
        let bytes: &[u8] = tensor.bytes().map_or(&[], |bytes| bytes);
        let dtype = match tensor.dtype() {
            DType::F64 => Dtype::F64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        Ok((name.as_str(), TensorView::new(dtype, tensor.shape().to_vec(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, SafeTensorError>>()?;
    Ok(safetensors::serialize(views, None)?)
}

/// The graph with the weights of a file, converted to its own float types. Tensors of integers in the file, as
/// PyTorch's `num_batches_tracked`, are passed over.
///
/// # Errors
/// When the file is broken, lacks a tensor, has one that the graph has not, or one of another shape; names the tensor.
pub fn from_bytes(graph: &Graph, bytes: &[u8]) -> Result<Graph, ExchangeError> {
    let file = SafeTensors::deserialize(bytes)?;
    let exchanged = exchanged(graph)?;
    let found = file.names();
    let missing: Vec<&Name> =
        exchanged.iter().map(|one| one.name).filter(|name| !found.contains(&name.as_str())).collect();
    if let Some(first) = missing.first() {
        return Err(ExchangeError::Missing { name: first.to_string(), n_missing: missing.len() });
    }
    let mut unexpected = Vec::new();
    for (name, view) in file.iter() {
        if !exchanged.iter().any(|one| one.name.as_str() == name) && is_float(view.dtype()) {
            unexpected.push(name);
        }
    }
    unexpected.sort_unstable();
    if let Some(first) = unexpected.first() {
        return Err(ExchangeError::Unexpected { name: first.to_string(), n_unexpected: unexpected.len() });
    }
    let mut patch = Patch::new(graph);
    for Exchanged { name, tensor, is_transposed } in &exchanged {
        let read = read(name, &file.tensor(name)?)?;
        let mut expected = tensor.shape().to_vec();
        if *is_transposed {
            expected.reverse();
        }
        if read.shape() != expected {
            let (name, got) = (name.to_string(), read.shape().to_vec());
            return Err(ExchangeError::Shape { name, expected, got });
        }
        let read = if *is_transposed { transposed(&read)? } else { read };
        let read = match read.dtype() == tensor.dtype() {
            true => read,
            false => tensor_of(tensor.dtype(), tensor.shape(), &numbers(&read)?)?,
        };
        patch.replace_initializer(name, read);
    }
    Ok(patch.apply(None)?)
}

struct Exchanged<'a> {
    name: &'a Name,
    tensor: &'a Tensor,
    is_transposed: bool,
}

/// What a file holds of a graph.
fn exchanged(graph: &Graph) -> Result<Vec<Exchanged<'_>>, ExchangeError> {
    let roles = roles(graph, &infer(graph, &Bindings::default())?);
    let known = graph.initializers.iter().filter_map(|(name, tensor)| Some((name, tensor, roles.get(name)?)));
    let held = known.filter(|(_, _, role)| **role != Role::Constant);
    Ok(held
        .map(|(name, tensor, role)| Exchanged { name, tensor, is_transposed: has_inputs_first(graph, tensor, role) })
        .collect())
}

/// Whether it is a matrix `[in, out]`.
fn has_inputs_first(graph: &Graph, tensor: &Tensor, role: &Role) -> bool {
    let Role::Weight(weight) = role else { return false };
    let is_moved =
        weight.views.iter().filter_map(|&node_idx| graph.nodes.get(node_idx)).any(|node| {
            !matches!(node.op, Op::Identity | Op::Cast(_) | Op::QuantizeLinear(_) | Op::DequantizeLinear(_))
        });
    weight.n_blocks == 1 && weight.inner == 1 && tensor.shape() == [weight.outer, weight.n_rows] && !is_moved
}

fn transposed(tensor: &Tensor) -> Result<Tensor, TensorError> {
    let &[n_rows, n_columns] = tensor.shape() else {
        return Err(TensorError::Undefined { what: "transposing what is no matrix", dtype: tensor.dtype() });
    };
    let n_bytes = tensor.dtype().n_bits() / 8;
    let bytes = tensor.bytes().map_or(&[][..], |bytes| bytes);
    let mut moved = Vec::with_capacity(bytes.len());
    for column in 0..n_columns {
        for row in 0..n_rows {
            let start = (row * n_columns + column) * n_bytes;
            moved.extend_from_slice(&bytes[start..start + n_bytes]);
        }
    }
    Tensor::from_bytes(tensor.dtype(), &[n_columns, n_rows], Bytes::from(moved))
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

fn read(name: &Name, view: &TensorView<'_>) -> Result<Tensor, ExchangeError> {
    let dtype = match view.dtype() {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        got => return Err(ExchangeError::Type { name: name.to_string(), got }),
    };
    Ok(Tensor::from_bytes(dtype, view.shape(), Bytes::copy_from_slice(view.data()))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::graph::op::{BatchNormalization, Gemm};
    use crate::graph::{GraphBuilder, TensorType};

    /// `relu6(norm(x · a)) · bᵀ + c`, `a [3, 2]` read by a MatMul and `b [4, 2]` by a Gemm; elements count up from
    /// `first`.
    fn network(first: f32) -> Graph {
        let mut builder = GraphBuilder::new("network");
        let x = builder.input("x", TensorType::new(DType::F32, [1usize, 3]));
        let mut next = first;
        let mut counted = |builder: &mut GraphBuilder, name: &str, shape: &[usize]| {
            let n: usize = shape.iter().product();
            let elements: Vec<f32> = (0..n).map(|idx| next + idx as f32).collect();
            next += n as f32;
            builder.initializer(name, Tensor::new(shape, elements).expect("as many"))
        };
        let a = counted(&mut builder, "a.weight", &[3, 2]);
        let y = builder.node(Op::MatMul, &[&x, &a]);
        let norms = ["weight", "bias", "running_mean", "running_var"];
        let norms = norms.map(|name| counted(&mut builder, &format!("norm.{name}"), &[2]));
        let [scale, bias, mean, variance] = &norms;
        let norm = Op::BatchNormalization(BatchNormalization::default());
        let y = builder.node(norm, &[&y, scale, bias, mean, variance]);
        let bounds = [0.0f32, 6.0].map(|bound| builder.initializer("bound", Tensor::scalar(bound)));
        let y = builder.node(Op::Clip, &[&y, &bounds[0], &bounds[1]]);
        let (b, c) = (counted(&mut builder, "b.weight", &[4, 2]), counted(&mut builder, "b.bias", &[4]));
        let y = builder.node(Op::Gemm(Gemm { trans_b: true, ..Gemm::default() }), &[&y, &b, &c]);
        builder.output(&y);
        builder.finish().expect("a graph")
    }

    fn file(tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
        let bytes = vec![0u8; 1024];
        let views = tensors.iter().map(|&(name, dtype, shape)| {
            let n_bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (name, TensorView::new(dtype, shape.to_vec(), &bytes[..n_bytes]).expect("as many bytes"))
        });
        safetensors::serialize(views, None).expect("a file")
    }

    const WHOLE: [(&str, Dtype, &[usize]); 7] = [
        ("a.weight", Dtype::F32, &[2, 3]),
        ("norm.weight", Dtype::F32, &[2]),
        ("norm.bias", Dtype::F16, &[2]),
        ("norm.running_mean", Dtype::BF16, &[2]),
        ("norm.running_var", Dtype::F64, &[2]),
        ("b.weight", Dtype::F32, &[4, 2]),
        ("b.bias", Dtype::F32, &[4]),
    ];

    #[test]
    fn candle_reads_what_is_written() {
        let bytes = to_bytes(&network(0.0)).expect("a file");
        let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).expect("candle reads it");
        let mut names: Vec<&str> = read.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut expected = WHOLE.map(|(name, _, _)| name);
        expected.sort_unstable();
        assert_eq!(names, expected, "no bounds of the Clip");
        let matrix = |name: &str| read[name].to_vec2::<f32>().expect("a matrix");
        assert_eq!(matrix("a.weight"), [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]);
        assert_eq!(matrix("b.weight"), [[14.0, 15.0], [16.0, 17.0], [18.0, 19.0], [20.0, 21.0]]);
        assert_eq!(read["norm.running_mean"].to_vec1::<f32>().expect("a vector"), [10.0, 11.0]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = to_bytes(&network(5.0)).expect("a file");
        assert_eq!(from_bytes(&network(0.0), &bytes).expect("it fits"), network(5.0));
        assert_eq!(to_bytes(&network(5.0)).expect("a file"), bytes);
    }

    #[test]
    fn other_float_types_are_converted_and_integers_passed_over() {
        let mut tensors = WHOLE.to_vec();
        tensors.push(("norm.num_batches_tracked", Dtype::I64, &[]));
        let read = from_bytes(&network(3.0), &file(&tensors)).expect("it fits");
        assert_eq!(read.initializers["norm.running_var"], Tensor::vector(vec![0f32; 2]));
        assert_eq!(read.initializers["bound_2"], Tensor::scalar(6f32));
    }

    #[track_caller]
    fn refused(change: impl Fn(&mut Vec<(&'static str, Dtype, &'static [usize])>), expected: &str) {
        let mut tensors = WHOLE.to_vec();
        change(&mut tensors);
        let error = from_bytes(&network(0.0), &file(&tensors)).expect_err("it is refused").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn tensors_that_do_not_fit_are_named() {
        refused(|tensors| drop(tensors.drain(..2)), "the file has no tensor `a.weight` (2 missing)");
        refused(|tensors| tensors.push(("head.bias", Dtype::F32, &[1])), "no initializer `head.bias` (1 unexpected)");
        refused(|tensors| tensors[0].2 = &[3, 2], "tensor `a.weight` has the shape [3, 2], the network takes [2, 3]");
        refused(|tensors| tensors[6].1 = Dtype::I32, "tensor `b.bias` is of I32; save it as F32");
        let cut = &file(&WHOLE)[..100];
        assert!(
            from_bytes(&network(0.0), cut).expect_err("it is refused").to_string().starts_with("not a safetensors")
        );
    }
}
