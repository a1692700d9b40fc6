//! The normalizations by their primitives.

use super::super::raw::position;
use super::decompose::Parts;
use crate::graph::op::{InstanceNormalization, LayerNormalization, Reduce, Reshape, Shape};
use crate::graph::shape::MOST_DIMS;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Name, Node, Op};

/// The type in which statistics are computed, where `stash_type` states one that they can be cast to.
fn stash(stash_type: i64) -> Option<DType> {
    i32::try_from(stash_type).ok().and_then(DType::from_onnx)
}

fn constant_axes(axis: i64, x: &Name, parts: &mut Parts<'_>) -> Option<Name> {
    let axes = match parts.context.rank(x) {
        Some(rank) if axis < 0 => {
            position(axis, rank)?;
            axis..0
        }
        Some(rank) => {
            position(axis, rank)?;
            axis..i64::try_from(rank).ok()?
        }
        None => {
            position(axis, MOST_DIMS).filter(|_| axis < 0)?;
            axis..0
        }
    };
    Some(parts.constant(Tensor::vector(axes.collect()), "axes"))
}

/// `x` in the type of the statistics, and its own type where that is another.
fn stashed(x: &Name, stash_type: i64, parts: &mut Parts<'_>) -> Option<(Name, DType, Option<DType>)> {
    let (dtype, stash) = (parts.dtype(x)?, stash(stash_type)?);
    if dtype == stash {
        Some((x.clone(), stash, None))
    } else {
        Some((parts.cast(x, stash, "wide"), stash, Some(dtype)))
    }
}

fn mean(x: &Name, axes: &Name, parts: &mut Parts<'_>, suffix: &str) -> Name {
    let reduce = Reduce { keepdims: true, noop_with_empty_axes: false };
    parts.inner(Op::ReduceMean(reduce), &[x, axes], suffix)
}

/// `(x - mean) / √(mean((x - mean)²) + ε) * scale + bias`
pub(super) fn layer(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::LayerNormalization(LayerNormalization { axis, epsilon, stash_type }), x, scale) =
        (&node.op, node.input(0)?, node.input(1)?)
    else {
        return None;
    };
    let axes = constant_axes(*axis, x, parts)?;
    let (wide, stash, narrow) = stashed(x, *stash_type, parts)?;
    let average = mean(&wide, &axes, parts, "mean");
    let deviation = parts.inner(Op::Sub, &[&wide, &average], "deviation");
    let square = parts.inner(Op::Mul, &[&deviation, &deviation], "square");
    let variance = mean(&square, &axes, parts, "variance");
    let epsilon = parts.number((*epsilon).into(), stash, "epsilon")?;
    let shifted = parts.inner(Op::Add, &[&variance, &epsilon], "shifted");
    let deviation_of_all = parts.inner(Op::Sqrt, &[&shifted], "deviation_of_all");
    let mut normalized = parts.inner(Op::Div, &[&deviation, &deviation_of_all], "normalized");
    if let Some(narrow) = narrow {
        normalized = parts.cast(&normalized, narrow, "narrow");
    }
    match node.input(2) {
        Some(bias) => {
            let scaled = parts.inner(Op::Mul, &[&normalized, scale], "scaled");
            parts.last(Op::Add, &[&scaled, bias], 0)?;
        }
        None => parts.last(Op::Mul, &[&normalized, scale], 0)?,
    }
    if node.output(1).is_some() {
        parts.last(Op::Identity, &[&average], 1)?;
    }
    if node.output(2).is_some() {
        parts.last(Op::Reciprocal, &[&deviation_of_all], 2)?;
    }
    Some(())
}

/// `x / √(mean(x²) + ε) * scale`
pub(super) fn root_mean_square(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::RMSNormalization(LayerNormalization { axis, epsilon, stash_type }), x, scale) =
        (&node.op, node.input(0)?, node.input(1)?)
    else {
        return None;
    };
    let axes = constant_axes(*axis, x, parts)?;
    let (wide, stash, _) = stashed(x, *stash_type, parts)?;
    let result = parts.dtype(scale)?;
    let square = parts.inner(Op::Mul, &[&wide, &wide], "square");
    let average = mean(&square, &axes, parts, "mean");
    let epsilon = parts.number((*epsilon).into(), stash, "epsilon")?;
    let shifted = parts.inner(Op::Add, &[&average, &epsilon], "shifted");
    let root = parts.inner(Op::Sqrt, &[&shifted], "root");
    let mut normalized = parts.inner(Op::Div, &[&wide, &root], "normalized");
    if result != stash {
        normalized = parts.cast(&normalized, result, "narrow");
    }
    parts.last(Op::Mul, &[&normalized, scale], 0)
}

/// Every group of channels as one channel of an InstanceNormalization, then scale and bias a channel.
pub(super) fn group(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::GroupNormalization(op), x, scale, bias) = (&node.op, node.input(0)?, node.input(1)?, node.input(2)?)
    else {
        return None;
    };
    let rank = i64::try_from(parts.context.rank(x)?).ok()?;
    let n_groups = usize::try_from(op.num_groups).ok()?;
    let (wide, stash, narrow) = stashed(x, op.stash_type, parts)?;
    let (one, zero) = (parts.number(1.0, stash, "one")?, parts.number(0.0, stash, "zero")?);
    let count = parts.constant(Tensor::vector(vec![op.num_groups]), "groups");
    let (ones, zeros) =
        (parts.inner(Op::Expand, &[&one, &count], "ones"), parts.inner(Op::Expand, &[&zero, &count], "zeros"));
    let grouped = parts.constant(Tensor::vector(vec![0, i64::try_from(n_groups).ok()?, -1]), "grouped");
    let reshape = || Op::Reshape(Reshape { allowzero: false });
    let shape = parts.inner(Op::Shape(Shape { start: 0, end: None }), &[x], "shape");
    let rows = parts.inner(reshape(), &[&wide, &grouped], "rows");
    let instance = Op::InstanceNormalization(InstanceNormalization { epsilon: op.epsilon });
    let rows = parts.inner(instance, &[&rows, &ones, &zeros], "normalized");
    let mut normalized = parts.inner(reshape(), &[&rows, &shape], "channels");
    if let Some(narrow) = narrow {
        normalized = parts.cast(&normalized, narrow, "narrow");
    }
    let axes = parts.constant(Tensor::vector((1..rank - 1).collect::<Vec<i64>>()), "axes");
    let mut aligned = |name: &Name, suffix| {
        if rank == 2 { name.clone() } else { parts.inner(Op::Unsqueeze, &[name, &axes], suffix) }
    };
    let (scale, bias) = (aligned(scale, "scale"), aligned(bias, "bias"));
    let scaled = parts.inner(Op::Mul, &[&normalized, &scale], "scaled");
    parts.last(Op::Add, &[&scaled, &bias], 0)
}
