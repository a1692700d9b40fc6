//! Normalizations over the last axes that are spelled out as arithmetic become `LayerNormalization` and `RMSNormalization`.
//!
//! The core, a value divided by the root of its mean square, is found as a pattern; what scales and shifts it follows it
//! and is taken along as far as it is a parameter of the normalized axes. With a `Cast` before and behind, the operator
//! takes the narrow value: it computes its first stage in `f32` as well.

#[cfg(test)]
mod tests;

use super::constants::{expect_introducible, rounded, scalar};
use super::pattern::{Match, Pattern, expect_closed, node, one_of, value};
use super::{Edits, View};
use crate::graph::op::{LayerNormalization, Op, Reduce};
use crate::graph::patch::Patch;
use crate::graph::tensor::{DType, Tensor, n_elements};
use crate::graph::{Dim, Name, Node};

/// `(x − mean(x)) / √(mean((x − mean(x))²) + epsilon) · scale + bias`
pub(super) fn layer_norm(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let found = match view.graph.nodes[node_idx].op {
        Op::Div | Op::Mul => divided_by_root(&centred()).find(view, node_idx),
        Op::Add => shifted_form().find(view, node_idx),
        _ => None,
    };
    let Some(found) = found else { return };
    if let Err(reason) = replace(view, &found, true, Op::LayerNormalization, edits) {
        edits.decline(node_idx, reason);
    }
}

/// `x / √(mean(x²) + epsilon) · scale`
pub(super) fn rms_norm(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    if !matches!(view.graph.nodes[node_idx].op, Op::Div | Op::Mul) {
        return;
    }
    let Some(found) = divided_by_root(&value("x")).find(view, node_idx) else { return };
    if let Err(reason) = replace(view, &found, false, Op::RMSNormalization, edits) {
        edits.decline(node_idx, reason);
    }
}

fn centred() -> Pattern {
    value("x") - mean(value("x"))
}

fn mean(of: Pattern) -> Pattern {
    node("ReduceMean", [of, Pattern::Any])
}

fn or_cast(pattern: Pattern) -> Pattern {
    one_of([pattern.clone(), node("Cast", [pattern])])
}

/// `mean(x²) + epsilon`
fn variance(x: &Pattern) -> Pattern {
    let x = or_cast(x.clone());
    mean(one_of([node("Pow", [x.clone(), 2.0.into()]), x.clone() * x])) + Pattern::Scalar("epsilon")
}

/// One over the root of `mean(x²) + epsilon`.
fn inverse_root(x: &Pattern) -> Pattern {
    let variance = variance(x);
    let root = root(variance.clone());
    one_of([node("Reciprocal", [root.clone()]), Pattern::Number(1.0) / root, node("Pow", [variance, (-0.5).into()])])
}

fn root(of: Pattern) -> Pattern {
    one_of([node("Sqrt", [of.clone()]), node("Pow", [of, 0.5.into()])])
}

fn divided_by_root(x: &Pattern) -> Pattern {
    let above = or_cast(x.clone());
    one_of([above.clone() / root(variance(x)), above * inverse_root(x)])
}

/// `x · s + (bias − mean(x) · s)`, where `s` is scale over deviation: how tf2onnx has it.
fn shifted_form() -> Pattern {
    let scale = one_of([inverse_root(&centred()) * value("scale"), inverse_root(&centred())]);
    value("x") * scale.clone() + (value("bias") - mean(value("x")) * scale)
}

/// The nodes that become one, and what is left of them.
struct Normalization {
    nodes: Vec<usize>,
    last_idx: usize,
    x: Name,
    axis: i64,
    epsilon: f32,
    scale: Parameter,
    bias: Option<Parameter>,
}

/// A parameter over the normalized axes.
enum Parameter {
    Value(Name),
    Constant(&'static str, Tensor),
}

fn replace(
    view: &View<'_>,
    found: &Match,
    biased: bool,
    op: fn(LayerNormalization) -> Op,
    edits: &mut Edits,
) -> Result<(), String> {
    let normalization = normalization(view, found, biased)?;
    let Normalization { nodes, last_idx, x, axis, epsilon, scale, bias } = normalization;
    let op = op(LayerNormalization { axis, epsilon, stash_type: 1 });
    expect_introducible(view, &op)?;
    expect_closed(view, &nodes, last_idx)?;
    if let Some(patch) = edits.take(&nodes) {
        let scale = scale.into_name(patch);
        let bias = bias.map(|bias| bias.into_name(patch));
        let inputs = [x, scale].into_iter().chain(bias).map(Some).collect();
        let last = view.graph.nodes[last_idx].clone();
        nodes.iter().filter(|&&idx| idx != last_idx).for_each(|&idx| patch.remove(idx));
        patch.replace(last_idx, vec![Node { op, inputs, ..last }]);
    }
    Ok(())
}

impl Parameter {
    fn into_name(self, patch: &mut Patch) -> Name {
        match self {
            Parameter::Value(name) => name,
            Parameter::Constant(base, tensor) => patch.add_initializer(base, tensor),
        }
    }
}

fn normalization(view: &View<'_>, found: &Match, biased: bool) -> Result<Normalization, String> {
    let root_idx = *found.nodes.first().ok_or("nothing is there")?;
    let inner = found.value("x").ok_or("its input is not there")?;
    let rank = view.rank(inner).ok_or("its number of dimensions is not known")?;
    let n_axes = n_last_axes(view, found, rank)?;
    if !found.of(view, "Cast").all(|node| matches!(&node.op, Op::Cast(cast) if cast.to == DType::F32)) {
        return Err("it is computed in part in another type than f32".to_string());
    }
    let epsilon = found.scalar("epsilon").map(|epsilon| epsilon as f32).filter(|epsilon| (0.0..1.0).contains(epsilon));
    let epsilon = epsilon.ok_or("what it adds under the root is not between 0 and 1")?;
    let mut taken = Taken { view, nodes: found.nodes.clone(), last_idx: root_idx };
    let x = taken.widened(inner);
    let (dtype, dims) = typed(view, &x).ok_or("its number of dimensions is not known")?;
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(format!("the operator computes in f32, which is narrower than {dtype}"));
    }
    let normalized = dims.get(rank - n_axes..).and_then(|dims| dims.iter().map(Dim::known).collect::<Option<Vec<_>>>());
    let normalized = normalized.ok_or("the size of the normalized axes is not known")?;
    let place = Place { view, dtype, normalized: &normalized };
    let (scale, bias) = match found.value("bias") {
        Some(bias) => {
            let bias = place.parameter("bias", bias).ok_or("its bias is not one of the normalized axes")?;
            let scale = found.value("scale").map(|scale| place.parameter("scale", scale));
            (scale.map(|scale| scale.ok_or("its scale is not one of the normalized axes")).transpose()?, Some(bias))
        }
        None => {
            taken.narrowed(dtype);
            let scale = taken.follow(&Op::Mul, |name| place.parameter("scale", name));
            (scale, if biased { taken.follow(&Op::Add, |name| place.parameter("bias", name)) } else { None })
        }
    };
    let scale = scale.or_else(|| place.ones()).ok_or("a scale of ones cannot be made")?;
    if typed(view, taken.output()?).map(|(dtype, dims)| (dtype, dims.len())) != Some((dtype, rank)) {
        return Err("what comes out has another type than what goes in".to_string());
    }
    let Taken { nodes, last_idx, .. } = taken;
    let axis = -i64::try_from(n_axes).map_err(|_| "too many axes")?;
    Ok(Normalization { nodes, last_idx, x, axis, epsilon, scale, bias })
}

fn typed<'a>(view: &View<'a>, name: &Name) -> Option<(DType, &'a [Dim])> {
    let tensor = view.types.tensor(name)?;
    Some((tensor.dtype, tensor.shape.as_deref()?))
}

/// How many axes, the last ones, every mean is over.
fn n_last_axes(view: &View<'_>, found: &Match, rank: usize) -> Result<usize, String> {
    let mut all: Option<usize> = None;
    for mean in found.of(view, "ReduceMean") {
        if !matches!(mean.op, Op::ReduceMean(Reduce { keepdims: true, .. })) {
            return Err("a mean drops its axes".to_string());
        }
        let axes = mean.input(1).and_then(|axes| view.integers(axes)).ok_or("the axes of a mean are not constant")?;
        let from_front = |axis: i64| {
            usize::try_from(if axis < 0 { axis.checked_add_unsigned(u64::try_from(rank).ok()?)? } else { axis }).ok()
        };
        let mut axes: Vec<usize> =
            axes.into_iter().map(from_front).collect::<Option<_>>().ok_or("an axis is not there")?;
        axes.sort_unstable();
        let n_axes = axes.len();
        if n_axes == 0 || n_axes > rank || !axes.into_iter().eq(rank - n_axes..rank) {
            return Err("a mean is over other axes than the last".to_string());
        }
        if all.is_some_and(|all| all != n_axes) {
            return Err("its means are over different axes".to_string());
        }
        all = Some(n_axes);
    }
    all.ok_or_else(|| "it has no mean".to_string())
}

/// The nodes of a normalization, growing at both ends.
struct Taken<'v, 'a> {
    view: &'v View<'a>,
    nodes: Vec<usize>,
    last_idx: usize,
}

impl Taken<'_, '_> {
    fn output(&self) -> Result<&Name, String> {
        let last = self.view.graph.nodes.get(self.last_idx);
        last.and_then(|node| node.output(0)).ok_or_else(|| "its output is left out".to_string())
    }

    fn sole_reader(&self) -> Option<(usize, &Node)> {
        let reader = self.view.uses.sole_reader(self.output().ok()?)?;
        Some((reader.node_idx, self.view.graph.nodes.get(reader.node_idx)?))
    }

    /// What a `Cast` to `f32` before all this widens, where it is for this alone and what comes out is made as narrow again.
    fn widened(&mut self, x: &Name) -> Name {
        let wide = || {
            let cast_idx = self.view.uses.producer_idx(x)?;
            let cast = self.view.graph.nodes.get(cast_idx)?;
            let narrow = cast.input(0).filter(|_| matches!(&cast.op, Op::Cast(cast) if cast.to == DType::F32))?;
            let dtype = self.view.types.tensor(narrow)?.dtype;
            let (_, back) = self.sole_reader()?;
            let narrows = matches!(&back.op, Op::Cast(back) if back.to == dtype);
            let alone = self.view.uses.readers(x).iter().all(|reader| self.nodes.contains(&reader.node_idx));
            (narrows && alone && matches!(dtype, DType::F16 | DType::BF16)).then(|| (cast_idx, narrow.clone()))
        };
        match wide() {
            Some((cast_idx, narrow)) => {
                self.nodes.push(cast_idx);
                narrow
            }
            None => x.clone(),
        }
    }

    /// Takes the `Cast` that makes the result what went in.
    fn narrowed(&mut self, dtype: DType) {
        let differs = self.output().is_ok_and(|name| self.view.types.tensor(name).is_some_and(|t| t.dtype != dtype));
        let back = self.sole_reader().filter(|(_, node)| matches!(&node.op, Op::Cast(cast) if cast.to == dtype));
        if let Some((node_idx, _)) = back.filter(|_| differs) {
            self.push_last(node_idx);
        }
    }

    /// Takes the operator that combines the result with a parameter.
    fn follow(&mut self, op: &Op, parameter: impl Fn(&Name) -> Option<Parameter>) -> Option<Parameter> {
        let (node_idx, node) = self.sole_reader().filter(|(_, node)| node.op == *op)?;
        let output = self.output().ok()?;
        let other = node.inputs.iter().flatten().find(|input| *input != output)?;
        let parameter = parameter(other)?;
        self.push_last(node_idx);
        Some(parameter)
    }

    fn push_last(&mut self, node_idx: usize) {
        self.nodes.push(node_idx);
        self.last_idx = node_idx;
    }
}

/// What a parameter has to be like.
struct Place<'v, 'a> {
    view: &'v View<'a>,
    dtype: DType,
    normalized: &'v [usize],
}

impl Place<'_, '_> {
    /// The value as a parameter: a weight of just the normalized axes, or a constant that can be brought to that shape.
    fn parameter(&self, base: &'static str, name: &Name) -> Option<Parameter> {
        let tensor_type = self.view.types.tensor(name).filter(|tensor| tensor.dtype == self.dtype)?;
        let shape = tensor_type.known_shape()?;
        let of_constants = |node: &Node| {
            matches!(node.op, Op::Cast(_)) && node.input(0).is_some_and(|input| self.view.constant(input).is_some())
        };
        if shape == self.normalized {
            let fixed = self.view.constant(name).is_some() || self.view.uses.producer(name).is_some_and(of_constants);
            return fixed.then(|| Parameter::Value(name.clone()));
        }
        let tensor = self.view.constant(name)?;
        let n_leading = shape.len().saturating_sub(self.normalized.len());
        if shape[..n_leading].iter().all(|&dim| dim == 1) && shape[n_leading..] == *self.normalized {
            return Some(Parameter::Constant(base, tensor.reshaped(self.normalized).ok()?));
        }
        self.filled(base, scalar(self.view, name)?).filter(|_| shape.len() <= self.normalized.len())
    }

    fn ones(&self) -> Option<Parameter> {
        self.filled("ones", 1.0)
    }

    fn filled(&self, base: &'static str, number: f64) -> Option<Parameter> {
        let n_elements = n_elements(self.normalized).filter(|&n| n <= MOST_FILLED)?;
        Some(Parameter::Constant(base, rounded(self.dtype, self.normalized, vec![number; n_elements])?))
    }
}

/// The most elements that a parameter is made with.
const MOST_FILLED: usize = 1 << 20;
