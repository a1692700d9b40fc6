//! A network in 16-bit floats: its weights alone, behind a `Cast` that runtimes fold when they load it, or all that it
//! computes, with `Cast`s only where a region of `f32` begins or ends.
//!
//! What would not survive the narrower type stays in `f32` and is named: operators without a 16-bit form, constants
//! beyond its range or so small that they vanish, values that data have shown to be too large, and floats that count
//! something.

mod decide;
mod masks;
mod numbers;
mod rewrite;
mod roles;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::op::OPERATORS;
use crate::graph::shape::{self, Bindings, ShapeError};
use crate::graph::tensor::{DType, TensorError};
use crate::graph::{CheckError, Graph, Name};

/// A float of 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfType {
    /// IEEE 754 binary16: 11 bits of precision up to 65504.
    #[default]
    F16,
    /// The upper half of an `f32`: 8 bits of precision, nearly its range.
    BF16,
}

impl HalfType {
    /// The element type.
    pub fn dtype(self) -> DType {
        match self {
            HalfType::F16 => DType::F16,
            HalfType::BF16 => DType::BF16,
        }
    }

    /// The greatest finite number.
    pub fn greatest(self) -> f32 {
        match self {
            HalfType::F16 => ::half::f16::MAX.to_f32(),
            HalfType::BF16 => ::half::bf16::MAX.to_f32(),
        }
    }
}

/// How to narrow a network.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfOptions {
    /// The type to narrow to.
    pub dtype: HalfType,
    /// Only stores weights in it, each followed by a `Cast` to `f32`; everything is computed in `f32`.
    pub weights_only: bool,
    /// Leaves the network's inputs and outputs in `f32`.
    pub keep_ports: bool,
    /// What stays in `f32`: nodes by their name or by that of a value that they produce, constants by their name (with
    /// them whoever reads them), or operators by theirs (`Softmax`).
    pub keep: BTreeSet<String>,
    /// The greatest magnitude of values as data have shown it, by name.
    pub ranges: Option<BTreeMap<Name, f32>>,
}

impl Default for HalfOptions {
    fn default() -> HalfOptions {
        HalfOptions { dtype: HalfType::F16, weights_only: false, keep_ports: true, keep: BTreeSet::new(), ranges: None }
    }
}

/// Something that stayed in `f32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The node, or the constant where only weights are narrowed.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// A narrowed network.
#[derive(Clone, Debug)]
pub struct Halved {
    /// The result.
    pub graph: Graph,
    /// What stayed in `f32`, in the order of the graph.
    pub kept: Vec<Kept>,
    /// What else was done that changes values by more than rounding.
    pub notes: Vec<String>,
    /// How many nodes compute in the narrow type; with only the weights narrowed, how many weights were.
    pub n_narrowed: usize,
    /// The least version of ONNX's operator set in which the narrowed operators take the narrow type.
    pub opset: u32,
}

/// Why a network cannot be narrowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantizeHalfError {
    /// Something to be kept is not there.
    #[error("`keep` names `{name}`, which is no node, value or operator of the network; leave it out or correct it")]
    NoSuch {
        /// what was given
        name: String,
    },
    /// A range is no magnitude.
    #[error("the range of `{value}` is {range}; give the greatest magnitude seen, 0 or more")]
    Range {
        /// the value
        value: Name,
        /// what was given
        range: f32,
    },
    /// The types of the network do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The network is none.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The same network in 16-bit floats. Branches and bodies are left as they are.
///
/// # Errors
/// When `keep` names nothing, a range is no magnitude, or the network's types do not fit together.
pub fn to_half(graph: &Graph, options: &HalfOptions) -> Result<Halved, QuantizeHalfError> {
    check(graph, options)?;
    let types = shape::infer(graph, &Bindings::default())?;
    let halved = if options.weights_only {
        weights::narrow(graph, options)?
    } else {
        let plan = decide::decide(graph, &types, options);
        rewrite::rewrite(graph, &types, options, plan)?
    };
    shape::infer(&halved.graph, &Bindings::default())?;
    Ok(halved)
}

fn check(graph: &Graph, options: &HalfOptions) -> Result<(), QuantizeHalfError> {
    let mut known: BTreeSet<&str> = graph.value_names().map(Name::as_str).collect();
    known.extend(graph.nodes.iter().flat_map(|node| [node.name.as_str(), node.op.name()]));
    known.extend(OPERATORS.iter().map(|row| row.1));
    if let Some(name) = options.keep.iter().find(|name| name.is_empty() || !known.contains(name.as_str())) {
        return Err(QuantizeHalfError::NoSuch { name: name.clone() });
    }
    let wrong = |range: &f32| range.is_nan() || *range < 0.0;
    match options.ranges.iter().flatten().find(|(_, range)| wrong(range)) {
        Some((value, &range)) => Err(QuantizeHalfError::Range { value: value.clone(), range }),
        None => Ok(()),
    }
}
