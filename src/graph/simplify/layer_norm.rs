//! Normalizations over the last axes that are spelled out as arithmetic become `LayerNormalization` and `RMSNormalization`.
//!
//! The core, a value divided by the root of its mean square, is found as a pattern; what scales and shifts it follows it
//! and is taken along as far as it is a parameter of the normalized axes. With a `Cast` before and behind, the operator
//! takes the narrow value: it computes its first stage in `f32` as well.

use super::constants::{expect_introducible, rounded};
use super::pattern::{Match, Pattern, expect_closed, node, one_of, value};
use super::{Edits, View};
use crate::graph::op::{LayerNormalization, Op, Reduce};
use crate::graph::patch::Patch;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Name, Node};

/// `(x − mean(x)) / √(mean((x − mean(x))²) + epsilon) · scale + bias`
pub(super) fn layer_norm(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let found = match view.graph.nodes[node_idx].op {
        Op::Div | Op::Mul => divided_by_root(&centred()).find(view, node_idx),
        Op::Add => shifted_form().find(view, node_idx),
        _ => None,
    };
    let Some(found) = found else { return };
    let named = Op::LayerNormalization;
    if let Err(reason) = replace(view, &found, true, named, edits) {
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
    let rank =
        view.types.tensor(inner).and_then(|tensor| tensor.rank()).ok_or("its number of dimensions is not known")?;
    let n_axes = n_last_axes(view, found, rank)?;
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
        let [only] = super::constants::floats(tensor)?[..] else { return None };
        self.filled(base, only).filter(|_| shape.len() <= self.normalized.len())
    }

    fn ones(&self) -> Option<Parameter> {
        self.filled("ones", 1.0)
    }

    fn filled(&self, base: &'static str, number: f64) -> Option<Parameter> {
        let n_elements = crate::graph::tensor::n_elements(self.normalized).filter(|&n| n <= MOST_FILLED)?;
        Some(Parameter::Constant(base, rounded(self.dtype, self.normalized, vec![number; n_elements])?))
    }
}

/// The most elements that a parameter is made with.
const MOST_FILLED: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Net, check, check_declined_with, check_with};
    use super::super::{Options, simplify};
    use crate::graph::op::{Cast, Op, Reduce, RoundMode};
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{Dim, Graph, Name, TensorType};

    /// How a normalization is spelled out.
    #[derive(Clone, Copy, Debug, Default)]
    struct Spelling {
        axes: &'static [i64],
        pow: bool,
        centred_twice: bool,
        /// 0: divided, 1: times the reciprocal, 2: times one over, 3: times the power −½, 4: divided by the power ½
        root: u8,
        uncentred: bool,
        /// 0: none, 1: a vector, 2: with leading ones, 3: a scalar
        scale: u8,
        bias: bool,
    }

    fn mean(net: &mut Net, x: &Name, axes: &[i64]) -> Name {
        let axes = net.list(axes);
        net.node(Op::ReduceMean(Reduce { keepdims: true, noop_with_empty_axes: false }), &[x, &axes])
    }

    fn centred(net: &mut Net, x: &Name, axes: &[i64]) -> Name {
        let mean = mean(net, x, axes);
        net.node(Op::Sub, &[x, &mean])
    }

    fn spelled(net: &mut Net, x: &Name, spelling: Spelling) -> Name {
        let axes = if spelling.axes.is_empty() { &[-1] } else { spelling.axes };
        let above = if spelling.uncentred { x.clone() } else { centred(net, x, axes) };
        let below = if spelling.centred_twice { centred(net, x, axes) } else { above.clone() };
        let two = net.scalar(2.0);
        let square =
            if spelling.pow { net.node(Op::Pow, &[&below, &two]) } else { net.node(Op::Mul, &[&below, &below]) };
        let variance = mean(net, &square, axes);
        let epsilon = net.scalar(1e-3);
        let variance = net.node(Op::Add, &[&epsilon, &variance]);
        let power = |net: &mut Net, exponent: f32| {
            let exponent = net.scalar(exponent);
            net.node(Op::Pow, &[&variance, &exponent])
        };
        let y = match spelling.root {
            3 => {
                let inverse = power(net, -0.5);
                net.node(Op::Mul, &[&above, &inverse])
            }
            4 => {
                let root = power(net, 0.5);
                net.node(Op::Div, &[&above, &root])
            }
            kind => {
                let root = net.node(Op::Sqrt, &[&variance]);
                let one = net.scalar(1.0);
                match kind {
                    0 => net.node(Op::Div, &[&above, &root]),
                    1 => {
                        let inverse = net.node(Op::Reciprocal, &[&root]);
                        net.node(Op::Mul, &[&inverse, &above])
                    }
                    _ => {
                        let inverse = net.node(Op::Div, &[&one, &root]);
                        net.node(Op::Mul, &[&above, &inverse])
                    }
                }
            }
        };
        let shape: &[usize] = if axes.len() == 1 { &[6] } else { &[4, 6] };
        let leading: Vec<usize> = [1].into_iter().chain(shape.iter().copied()).collect();
        let y = match spelling.scale {
            0 => y,
            kind => {
                let scale = net.random(match kind {
                    1 => shape,
                    2 => &leading,
                    _ => &[],
                });
                net.node(Op::Mul, &[&scale, &y])
            }
        };
        if spelling.bias {
            let bias = net.random(shape);
            return net.node(Op::Add, &[&y, &bias]);
        }
        y
    }

    fn network(spelling: Spelling) -> Graph {
        let mut net = Net::new(1);
        let x = net.input(&[2, 4, 6]);
        let y = spelled(&mut net, &x, spelling);
        net.finish(&y)
    }

    #[test]
    fn the_usual_spelling() {
        let graph = network(Spelling { pow: true, scale: 1, bias: true, ..Spelling::default() });
        let simplified = check(&graph, &["LayerNormalization"]);
        insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
        graph "net"
          in   %x: f32[2, 4, 6]
          out  %add_2
          init %w: f32[6] [-0.99649346, 0.2650621, 0.8110064, 0.09135926, 0.0010894537, 0.59160435]
          init %w_2: f32[6] [-0.6637714, -0.91069144, 0.013361812, 0.98794246, 0.969452, 0.42082882]
          %add_2 = LayerNormalization(%x, %w, %w_2) {epsilon=0.001}
        "#);
        let simplified = check(&network(Spelling::default()), &["LayerNormalization"]);
        insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
        graph "net"
          in   %x: f32[2, 4, 6]
          out  %div
          init %ones: f32[6] [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
          %div = LayerNormalization(%x, %ones) {epsilon=0.001}
        "#);
    }

    #[test]
    fn root_mean_square() {
        let graph = network(Spelling { uncentred: true, scale: 1, bias: true, ..Spelling::default() });
        let simplified = check(&graph, &["RMSNormalization", "Add"]);
        insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
        graph "net"
          in   %x: f32[2, 4, 6]
          out  %add_2
          init %w: f32[6] [-0.99649346, 0.2650621, 0.8110064, 0.09135926, 0.0010894537, 0.59160435]
          init %w_2: f32[6] [-0.6637714, -0.91069144, 0.013361812, 0.98794246, 0.969452, 0.42082882]
          %mul_2 = RMSNormalization(%x, %w) {epsilon=0.001}
          %add_2 = Add(%mul_2, %w_2)
        "#);
    }

    #[test]
    fn as_tf2onnx_has_it() {
        for scaled in [true, false] {
            let mut net = Net::new(2);
            let x = net.input(&[2, 4, 6]);
            let average = mean(&mut net, &x, &[2]);
            let difference = net.node(Op::Sub, &[&x, &average]);
            let square = net.node(Op::Mul, &[&difference, &difference]);
            let variance = mean(&mut net, &square, &[2]);
            let epsilon = net.scalar(1e-3);
            let variance = net.node(Op::Add, &[&variance, &epsilon]);
            let root = net.node(Op::Sqrt, &[&variance]);
            let mut factor = net.node(Op::Reciprocal, &[&root]);
            if scaled {
                let scale = net.random(&[6]);
                factor = net.node(Op::Mul, &[&factor, &scale]);
            }
            let a = net.node(Op::Mul, &[&x, &factor]);
            let b = net.node(Op::Mul, &[&average, &factor]);
            let bias = net.random(&[6]);
            let b = net.node(Op::Sub, &[&bias, &b]);
            let y = net.node(Op::Add, &[&a, &b]);
            check(&net.finish(&y), &["LayerNormalization"]);
        }
    }

    fn cast(to: DType) -> Op {
        Op::Cast(Cast { to, saturate: true, round_mode: RoundMode::Up })
    }

    #[test]
    fn casts_around_and_inside_are_the_operators_own() {
        let mut net = Net::new(3);
        let x = net.builder.input("x", TensorType::new(DType::F16, [2usize, 6]));
        let wide = net.node(cast(DType::F32), &[&x]);
        let y = spelled(&mut net, &wide, Spelling::default());
        let y = net.node(cast(DType::F16), &[&y]);
        let scale = net.builder.initializer("scale", Tensor::vector(vec![half::f16::from_f32(0.5); 6]));
        let y = net.node(Op::Mul, &[&y, &scale]);
        let graph = net.finish(&y);
        let simplified = simplify(&graph, &Options::default()).expect("it fits");
        insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
        graph "net"
          in   %x: f16[2, 6]
          out  %mul_2
          init %scale: f16[6] [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
          %mul_2 = LayerNormalization(%x, %scale) {epsilon=0.001}
        "#);

        let mut net = Net::new(4);
        let x = net.input(&[2, 6]);
        let average = mean(&mut net, &x, &[1]);
        let difference = net.node(Op::Sub, &[&x, &average]);
        let same = net.node(cast(DType::F32), &[&difference]);
        let two = net.scalar(2.0);
        let square = net.node(Op::Pow, &[&same, &two]);
        let variance = mean(&mut net, &square, &[1]);
        let epsilon = net.scalar(1e-3);
        let variance = net.node(Op::Add, &[&variance, &epsilon]);
        let root = net.node(Op::Sqrt, &[&variance]);
        let y = net.node(Op::Div, &[&difference, &root]);
        check(&net.finish(&y), &["LayerNormalization"]);
    }

    #[test]
    fn a_gate_is_no_scale() {
        let mut net = Net::new(5);
        let x = net.input(&[2, 4, 6]);
        let gate = net.builder.input("gate", TensorType::new(DType::F32, [6usize]));
        let y = spelled(&mut net, &x, Spelling::default());
        let y = net.node(Op::Mul, &[&y, &gate]);
        check(&net.finish(&y), &["LayerNormalization", "Mul"]);
    }

    #[test]
    fn only_as_far_as_the_opset_goes() {
        let graph = network(Spelling { scale: 1, bias: true, ..Spelling::default() });
        let limited = |opset| Options { opset: Some(opset), ..Options::default() };
        check_with(&limited(17), &graph, &["LayerNormalization"]);
        let reasons = [
            "LayerNormalization is an operator of opset 17, the network keeps to 16",
            "RMSNormalization is an operator of opset 23, the network keeps to 16",
        ];
        check_declined_with(&limited(16), &graph, &reasons);
    }

    #[test]
    fn other_axes_and_readers_are_left() {
        let declined = |graph: &Graph, reason: &str| {
            let limited = Options { opset: Some(22), ..Options::default() };
            let simplified = simplify(graph, &limited).expect("it fits");
            assert_eq!(simplified.graph.nodes.len(), graph.nodes.len());
            assert_eq!(simplified.declined[0].reason, reason);
        };
        declined(&network(Spelling { axes: &[1], ..Spelling::default() }), "a mean is over other axes than the last");

        let mut net = Net::new(6);
        let x = net.input(&[2, 4, 6]);
        let y = spelled(&mut net, &x, Spelling::default());
        net.builder.output(&"sub".into());
        declined(&net.finish(&y), "`sub` is read elsewhere, too");

        let mut net = Net::new(7);
        let x = net.builder.input("x", TensorType::new(DType::F32, [Dim::from(2), Dim::from("width")]));
        let y = spelled(&mut net, &x, Spelling::default());
        declined(&net.finish(&y), "the size of the normalized axes is not known");

        let mut net = Net::new(8);
        let x = net.input(&[2, 6]);
        let average = mean(&mut net, &x, &[1]);
        let difference = net.node(Op::Sub, &[&x, &average]);
        let square = net.node(Op::Mul, &[&difference, &difference]);
        let variance = mean(&mut net, &square, &[0]);
        let epsilon = net.scalar(1e-3);
        let variance = net.node(Op::Add, &[&variance, &epsilon]);
        let root = net.node(Op::Sqrt, &[&variance]);
        let y = net.node(Op::Div, &[&difference, &root]);
        declined(&net.finish(&y), "a mean is over other axes than the last");

        let mut net = Net::new(9);
        let x = net.input(&[2, 6]);
        let y = spelled(&mut net, &x, Spelling::default());
        let mut parts = net.finish(&y).to_parts();
        let epsilon = parts.initializers.values_mut().find(|tensor| **tensor == Tensor::scalar(1e-3f32));
        *epsilon.expect("the epsilon") = Tensor::scalar(2f32);
        declined(&Graph::new(parts).expect("a network"), "what it adds under the root is not between 0 and 1");
    }

    #[test]
    fn wider_floats_are_left() {
        let mut net = Net::new(10);
        let x = net.input(&[2, 6]);
        let y = spelled(&mut net, &x, Spelling::default());
        let mut parts = net.finish(&y).to_parts();
        parts.inputs[0].value_type = Some(TensorType::new(DType::F64, [2usize, 6]).into());
        for tensor in parts.initializers.values_mut().filter(|tensor| tensor.dtype() == DType::F32) {
            let number = f64::from(tensor.as_slice::<f32>().expect("floats")[0]);
            *tensor = Tensor::scalar(number);
        }
        let reason = "the operator computes in f32, which is narrower than f64";
        let simplified = simplify(&Graph::new(parts).expect("a network"), &Options::default()).expect("it fits");
        assert!(simplified.graph.nodes.iter().all(|node| !matches!(node.op, Op::LayerNormalization(_))));
        assert!(simplified.declined.iter().all(|declined| declined.reason == reason));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_spelling(
            several: bool, pow: bool, centred_twice: bool, root in 0u8..5, uncentred: bool, scale in 0u8..4, bias: bool,
        ) {
            let axes: &[i64] = if several { &[2, -2] } else { &[] };
            let spelling = Spelling { axes, pow, centred_twice: centred_twice && !uncentred, root, uncentred, scale, bias };
            let operators: &[&str] = match (uncentred, bias) {
                (false, _) => &["LayerNormalization"],
                (true, false) => &["RMSNormalization"],
                (true, true) => &["RMSNormalization", "Add"],
            };
            check(&network(spelling), operators);
        }
    }
}
