//! Products with a constant matrix: what `MatMul` and `Gemm` have in common.

use super::plan::check_finite;
use super::{QuantizeError, scheme::Weights};
use crate::graph::op::{self, Op};
use crate::graph::patch::Patch;
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor, turned};
use crate::graph::{Graph, Name, Node};

/// A constant that a caller cannot override.
pub(super) fn constant<'a>(graph: &'a Graph, node: &Node, position: usize) -> Option<&'a Tensor> {
    node.input(position).and_then(|name| graph.constant(name))
}

/// A constant of `f32`, finite; in words why it is none.
pub(super) fn floats<'a>(graph: &'a Graph, node: &Node, position: usize) -> Result<&'a Tensor, String> {
    let tensor = constant(graph, node, position).ok_or("its weight is no constant")?;
    if tensor.dtype() != DType::F32 {
        return Err(format!("its weight is {}; simplify first", tensor.dtype()));
    }
    let name = node.input(position).expect("the constant has a name");
    check_finite(graph, std::iter::once(name)).map_err(|error| error.to_string())?;
    Ok(tensor)
}

/// Whether a node reads an activation of `f32` there.
pub(super) fn reads_floats(graph: &Graph, types: &Types, node: &Node, position: usize) -> bool {
    let is_f32 = |name: &Name| types.tensor(name).is_some_and(|known| known.dtype == DType::F32);
    node.input(position).is_some_and(is_f32) && constant(graph, node, position).is_none()
}

/// `A · B + C` with a constant `B`.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    /// What stands for the numbers of `B` as they are here: the same for products of one key.
    pub(super) key: (Name, bool, u32),
    /// `A`.
    pub(super) activation: Name,
    /// `B` as `[…, K, N]`, what the product is multiplied by taken in.
    pub(super) weight: Tensor,
    /// `C`.
    pub(super) bias: Option<Bias>,
}

/// What a product is added to.
#[derive(Clone, Debug)]
pub(super) enum Bias {
    /// A value of the graph.
    Value(Name),
    /// A constant of the graph times a number.
    Scaled(Name, Tensor),
}

impl Bias {
    /// Its name in the patched graph.
    pub(super) fn name(&self, patch: &mut Patch) -> Name {
        match self {
            Bias::Value(name) => name.clone(),
            Bias::Scaled(name, tensor) => patch.add_initializer(&format!("{name}_scaled"), tensor.clone()),
        }
    }
}

impl Dense {
    /// That of a `MatMul` or `Gemm`; in words why it is none.
    pub(super) fn of(graph: &Graph, types: &Types, node: &Node) -> Result<Dense, String> {
        const ACTIVATIONS: &str = "both its inputs are activations";
        if constant(graph, node, 0).is_some() {
            return Err("its constant stands first".to_string());
        }
        let name = node.input(1).ok_or(ACTIVATIONS)?.clone();
        if constant(graph, node, 1).is_none() {
            return Err(ACTIVATIONS.to_string());
        }
        let activation = node.input(0).filter(|_| reads_floats(graph, types, node, 0));
        let activation = activation.ok_or("it multiplies no floats of 32 bits")?.clone();
        let weight = floats(graph, node, 1)?;
        if weight.rank() < 2 || types.tensor(&activation).and_then(|known| known.rank()) == Some(1) {
            return Err("it multiplies a vector, not a matrix".to_string());
        }
        let Op::Gemm(gemm) = &node.op else {
            return Ok(Dense { key: (name, false, 1f32.to_bits()), activation, weight: weight.clone(), bias: None });
        };
        if gemm.trans_a {
            return Err("its first input is transposed".to_string());
        }
        let key = (name, gemm.trans_b, gemm.alpha.to_bits());
        let weight = scaled(&transposed(weight, gemm.trans_b)?, gemm.alpha)?;
        Ok(Dense { key, activation, weight, bias: bias(graph, node, gemm)? })
    }

    /// The axis of the output channels, where each may have its own scale: runtimes take that of a matrix.
    pub(super) fn channels(&self) -> Option<usize> {
        (self.weight.rank() == 2).then_some(1)
    }
}

/// What is made once of the weights of products: those of one key.
pub(super) type Key = ((Name, bool, u32), Weights);

fn bias(graph: &Graph, node: &Node, gemm: &op::Gemm) -> Result<Option<Bias>, String> {
    let Some(name) = node.input(2) else { return Ok(None) };
    if gemm.beta == 1.0 {
        return Ok(Some(Bias::Value(name.clone())));
    }
    let tensor = constant(graph, node, 2).ok_or("its bias is no constant and its beta is not 1")?;
    Ok(Some(Bias::Scaled(name.clone(), scaled(tensor, gemm.beta)?)))
}

fn scaled(tensor: &Tensor, factor: f32) -> Result<Tensor, String> {
    if factor == 1.0 {
        return Ok(tensor.clone());
    }
    let numbers = tensor.to_vec::<f32>().map_err(|error| error.to_string())?;
    let scaled = numbers.into_iter().map(|x| x * factor).collect();
    Tensor::new(tensor.shape(), scaled).map_err(|error| error.to_string())
}

/// A matrix with its axes swapped, where that is wanted.
fn transposed(tensor: &Tensor, wanted: bool) -> Result<Tensor, String> {
    let (&[n_rows, n_columns], true) = (tensor.shape(), wanted) else { return Ok(tensor.clone()) };
    let numbers = tensor.as_slice::<f32>().map_err(|error| error.to_string())?;
    Tensor::new(&[n_columns, n_rows], turned(numbers, n_rows, n_columns)).map_err(|error| error.to_string())
}

/// A network in which products read narrow weights.
#[derive(Clone, Debug)]
pub struct Narrowed {
    /// The result.
    pub graph: Graph,
    /// The nodes that compute on narrow weights now, by their position before.
    pub integer: Vec<usize>,
    /// The constants that are narrow.
    pub n_weights: usize,
    /// The nodes that could compute so and do not, and why.
    pub float: Vec<super::plan::Float>,
}

impl Narrowed {
    /// Where no node computes on integers, that is said.
    pub(super) fn checked(self) -> Result<Narrowed, QuantizeError> {
        if !self.integer.is_empty() {
            return Ok(self);
        }
        let named = |float: &super::plan::Float| format!("{}: {}", float.node, float.reason);
        let reason = self.float.first().map_or("it has no operator that the scheme names".to_string(), named);
        Err(QuantizeError::Nothing { reason })
    }
}
