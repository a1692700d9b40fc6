//! Activations that are spelled out as arithmetic become the operators that ONNX has for them.
//!
//! Other rooms then see one operator, and both runtimes compute it in one pass or take it apart as it was. Two are left
//! as they stand: `log(1 + exp(x))`, since onnxruntime's `Softplus` takes fourteen times as long, and `x · sigmoid(x)`, for
//! which it has a kernel that it does not use for `Swish` (and tract does not read the `alpha` of `Swish`).

use super::constants::{expect_introducible, rounded, scalar};
use super::pattern::{Match, Pattern, expect_closed, node, one_of, product, value};
use super::{Edits, View};
use crate::graph::op::{Approximate, Gelu, HardSigmoid, LeakyRelu, Op};
use crate::graph::tensor::DType;
use crate::graph::{Name, Node};

/// `x · ½ · (1 + erf(x / √2))`, and the approximation with tanh.
pub(super) fn gelu(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    if !matches!(view.graph.nodes[node_idx].op, Op::Mul | Op::Div) {
        return;
    }
    for (pattern, approximate) in [(gelu_erf(), Approximate::None), (gelu_tanh(), Approximate::Tanh)] {
        recognise(view, node_idx, edits, &pattern, |_| Some(Op::Gelu(Gelu { approximate })));
    }
}

fn gelu_erf() -> Pattern {
    use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
    let erf = node("Erf", [one_of([x() / SQRT_2, x() * FRAC_1_SQRT_2])]);
    product(&x(), &(erf + 1.0), 0.5)
}

fn gelu_tanh() -> Pattern {
    const CUBIC: f64 = 0.044_715;
    let factor = (2.0 / std::f64::consts::PI).sqrt();
    let square = one_of([x() * x(), node("Pow", [x(), 2.0.into()])]);
    let cube = one_of([node("Pow", [x(), 3.0.into()]), square.clone() * x()]);
    let scaled_square = one_of([product(&x(), &x(), CUBIC), square.clone() * CUBIC]);
    let cubic = one_of([cube * CUBIC, square * (x() * CUBIC), x() * scaled_square.clone()]);
    let inner = one_of([(x() + cubic) * factor, product(&x(), &(scaled_square + 1.0), factor)]);
    product(&x(), &(node("Tanh", [inner]) + 1.0), 0.5)
}

/// `x · clip(x + 3, 0, 6) / 6`, and `x · HardSigmoid(x)`.
pub(super) fn hard_swish(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    if !matches!(view.graph.nodes[node_idx].op, Op::Mul | Op::Div) {
        return;
    }
    let spelled = one_of([product(&x(), &clip_3_6(), SIXTH), x() * node("HardSigmoid", [x()])]);
    recognise(view, node_idx, edits, &spelled, |found| {
        let is_sixth = |node: &Node| matches!(&node.op, Op::HardSigmoid(op) if is_sixth(op));
        found.of(view, "HardSigmoid").all(is_sixth).then_some(Op::HardSwish)
    });
}

const SIXTH: f64 = 1.0 / 6.0;

fn is_sixth(op: &HardSigmoid) -> bool {
    (f64::from(op.alpha) - SIXTH).abs() <= 1e-6 && op.beta == 0.5
}

fn clip_3_6() -> Pattern {
    node("Clip", [x() + 3.0, 0.0.into(), 6.0.into()])
}

/// `clip(x + 3, 0, 6) / 6`, and `clip(alpha · x + beta, 0, 1)`.
pub(super) fn hard_sigmoid(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let pattern = match view.graph.nodes[node_idx].op {
        Op::Mul | Op::Div => one_of([clip_3_6() / 6.0, clip_3_6() * SIXTH]),
        Op::Clip => {
            let (alpha, divisor) = (Pattern::Scalar("alpha"), Pattern::Scalar("divisor"));
            let line = one_of([x() * alpha, x() / divisor]) + Pattern::Scalar("beta");
            node("Clip", [line, 0.0.into(), 1.0.into()])
        }
        _ => return,
    };
    recognise(view, node_idx, edits, &pattern, |found| {
        let alpha = found.scalar("alpha").or_else(|| found.scalar("divisor").map(f64::recip)).unwrap_or(SIXTH);
        let beta = found.scalar("beta").unwrap_or(0.5);
        let (alpha, beta) = (alpha as f32, beta as f32);
        (alpha.is_finite() && beta.is_finite()).then_some(Op::HardSigmoid(HardSigmoid { alpha, beta }))
    });
}

/// `x · tanh(Softplus(x))`
pub(super) fn mish(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    if matches!(view.graph.nodes[node_idx].op, Op::Mul) {
        let mish = x() * node("Tanh", [node("Softplus", [x()])]);
        recognise(view, node_idx, edits, &mish, |_| Some(Op::Mish));
    }
}

/// `max(x, 0)`, and `Clip` without an upper bound at 0.
pub(super) fn relu(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let node_at = &view.graph.nodes[node_idx];
    match node_at.op {
        Op::Max => recognise(view, node_idx, edits, &node("Max", [x(), 0.0.into()]), |_| Some(Op::Relu)),
        Op::Clip => {
            let is = |name: &Name, number: f64| scalar(view, name) == Some(number);
            let from_zero = node_at.input(1).is_some_and(|min| is(min, 0.0));
            let open = node_at.input(2).is_none_or(|max| is(max, f64::INFINITY));
            if let (Some(input), true, true) = (node_at.input(0), from_zero, open) {
                replace(view, &[node_idx], input, Op::Relu, edits);
            }
        }
        _ => {}
    }
}

/// `max(x, alpha · x)`
pub(super) fn leaky_relu(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    if matches!(view.graph.nodes[node_idx].op, Op::Max) {
        let leaky = node("Max", [x(), x() * Pattern::Scalar("alpha")]);
        recognise(view, node_idx, edits, &leaky, |found| {
            let alpha = found.scalar("alpha").filter(|alpha| (0.0..=1.0).contains(alpha))?;
            Some(Op::LeakyRelu(LeakyRelu { alpha: alpha as f32 }))
        });
    }
}

/// `min(max(x, low), high)` and `max(min(x, high), low)` become `Clip`.
pub(super) fn clip(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let (low, high) = (Pattern::Scalar("low"), Pattern::Scalar("high"));
    let pattern = match view.graph.nodes[node_idx].op {
        Op::Min => node("Min", [node("Max", [x(), low]), high]),
        Op::Max => node("Max", [node("Min", [x(), high]), low]),
        _ => return,
    };
    let Some(found) = pattern.find(view, node_idx) else { return };
    let (Some(input), Some(low), Some(high)) = (found.value("x"), found.scalar("low"), found.scalar("high")) else {
        return;
    };
    let dtype = view.types.tensor(input).map(|tensor| tensor.dtype);
    let bound = |number: f64| rounded(dtype?, &[], vec![number]);
    let (Some(min), Some(max), true) = (bound(low), bound(high), low <= high) else { return };
    if let Err(reason) = expect_replaceable(view, &found.nodes, input, &Op::Clip) {
        return edits.decline(node_idx, reason);
    }
    if let Some(patch) = edits.take(&found.nodes) {
        let bounds = [patch.add_initializer("min", min), patch.add_initializer("max", max)];
        let inputs = [input.clone()].into_iter().chain(bounds).map(Some).collect();
        let root = view.graph.nodes[node_idx].clone();
        found.nodes.iter().skip(1).for_each(|&idx| patch.remove(idx));
        patch.replace(node_idx, vec![Node { op: Op::Clip, inputs, ..root }]);
    }
}

fn x() -> Pattern {
    value("x")
}

/// Puts the operator in the place of what the pattern matches, `x` being its input.
fn recognise(
    view: &View<'_>,
    node_idx: usize,
    edits: &mut Edits,
    pattern: &Pattern,
    op: impl FnOnce(&Match) -> Option<Op>,
) {
    let Some(found) = pattern.find(view, node_idx) else { return };
    if let (Some(input), Some(op)) = (found.value("x"), op(&found)) {
        replace(view, &found.nodes, input, op, edits);
    }
}

fn replace(view: &View<'_>, nodes: &[usize], input: &Name, op: Op, edits: &mut Edits) {
    let Some((&root_idx, inner)) = nodes.split_first() else { return };
    if let Err(reason) = expect_replaceable(view, nodes, input, &op) {
        return edits.decline(root_idx, reason);
    }
    if let Some(patch) = edits.take(nodes) {
        let root = view.graph.nodes[root_idx].clone();
        inner.iter().for_each(|&idx| patch.remove(idx));
        patch.replace(root_idx, vec![Node { op, inputs: vec![Some(input.clone())], ..root }]);
    }
}

/// Whether an operator that computes elementwise from `input` can stand for these nodes, the first of which gives the result.
fn expect_replaceable(view: &View<'_>, nodes: &[usize], input: &Name, op: &Op) -> Result<(), String> {
    let root_idx = *nodes.first().ok_or("nothing is there")?;
    expect_introducible(view, op)?;
    expect_closed(view, nodes, root_idx)?;
    let output = view.graph.nodes[root_idx].output(0).ok_or("its output is left out")?;
    let shaped = |name: &Name| view.types.tensor(name).and_then(|tensor| Some((tensor.dtype, tensor.rank()?)));
    let only_narrow = matches!(op, Op::LeakyRelu(_) | Op::HardSigmoid(_) | Op::HardSwish | Op::Gelu(_) | Op::Mish);
    if only_narrow && shaped(input).is_some_and(|(dtype, _)| dtype == DType::F64) {
        return Err(format!("onnxruntime does not compute {} in f64", op.name()));
    }
    if shaped(input).is_none() || shaped(input) != shaped(output) {
        return Err("its constants change the number of dimensions, or that is not known".to_string());
    }
    // quantized operators are taken as they stand: tract does not load DequantizeLinear, HardSwish, QuantizeLinear
    if view.uses.producer(input).is_some_and(|node| matches!(node.op, Op::DequantizeLinear(_))) {
        return Err(format!("`{input}` is quantized"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Net, check, check_declined, check_declined_with, check_with};
    use super::super::{Options, simplify};
    use crate::graph::op::{DequantizeLinear, HardSigmoid, Op};
    use crate::graph::tensor::DType;
    use crate::graph::{Graph, Name, TensorType};

    /// A network that computes a formula of `x` in reverse Polish notation: numbers, `x` and operators, `1:` the second
    /// last value once more.
    fn network(formula: &str) -> Graph {
        let mut net = Net::new(1);
        let x = net.input(&[2, 3, 5]);
        let y = formula_of(&mut net, &x, formula);
        net.finish(&y)
    }

    fn formula_of(net: &mut Net, x: &Name, formula: &str) -> Name {
        let mut stack: Vec<Name> = Vec::new();
        for word in formula.split_whitespace() {
            let (op, n_inputs) = match word {
                "x" => {
                    stack.push(x.clone());
                    continue;
                }
                "+" => (Op::Add, 2),
                "*" => (Op::Mul, 2),
                "/" => (Op::Div, 2),
                "pow" => (Op::Pow, 2),
                "max" => (Op::Max, 2),
                "min" => (Op::Min, 2),
                "clip" => (Op::Clip, 3),
                "floor" => (Op::Clip, 2),
                "erf" => (Op::Erf, 1),
                "exp" => (Op::Exp, 1),
                "log" => (Op::Log, 1),
                "tanh" => (Op::Tanh, 1),
                "sigmoid" => (Op::Sigmoid, 1),
                "softplus" => (Op::Softplus, 1),
                "hardsigmoid" => (Op::HardSigmoid(HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }), 1),
                "relu6ish" => (Op::HardSigmoid(HardSigmoid { alpha: 0.2, beta: 0.5 }), 1),
                number => {
                    stack.push(net.scalar(number.parse().expect("a number")));
                    continue;
                }
            };
            let inputs = stack.split_off(stack.len() - n_inputs);
            stack.push(net.node(op, &inputs.iter().collect::<Vec<_>>()));
        }
        stack.pop().expect("a formula")
    }

    #[test]
    fn gelu_in_every_order() {
        for formula in [
            "x 0.5 * x 1.4142135 / erf 1 + *",
            "x x 1.4142135 / erf 1 + * 0.5 *",
            "x x 0.70710677 * erf 1 + 0.5 * *",
            "x 1 x 1.4142135 / erf + * 2 /",
            "0.5 x * 1 0.70710677 x * erf + *",
            "x 1.4142135 / erf 1 + x 2 / *",
            "0.5 x x 1.4142135 / erf 1 + * *",
            "x 0.5 * 1 x x 3 pow 0.044715 * + 0.7978846 * tanh + *",
            "x 1 x x x * x * 0.044715 * + 0.7978846 * tanh + * 0.5 *",
            "x 1 0.7978846 x * 1 0.044715 x * x * + * tanh + * 0.5 *",
            "x 1 x 0.7978846 * 0.044715 x x * * 1 + * tanh + 0.5 * *",
            "x 1 x 0.044715 x * x * x * + 0.7978846 * tanh + 0.5 * *",
        ] {
            check(&network(formula), &["Gelu"]);
        }
    }

    #[test]
    fn almost_gelu_is_left() {
        for formula in
            ["x 0.5 * x 1.4142135 / erf 2 + *", "x 0.5 * x 1.5 / erf 1 + *", "x 0.6 * x 1.4142135 / erf 1 + *"]
        {
            check_declined(&network(formula), &[]);
        }
    }

    #[test]
    fn hard_swish_and_hard_sigmoid() {
        for formula in [
            "x x 3 + 0 6 clip * 6 /",
            "x x 3 + 0 6 clip 6 / *",
            "x 3 x + 0 6 clip 0.16666667 * *",
            "x 6 / x 3 + 0 6 clip *",
            "x hardsigmoid x *",
            "x x 3 + 0 max 6 min * 6 /",
            "x x 6 / 0.5 + 0 1 clip *",
        ] {
            check(&network(formula), &["HardSwish"]);
        }
        for formula in
            ["x 3 + 0 6 clip 6 /", "x 3 + 0 6 clip 0.16666667 *", "0.5 x 0.2 * + 0 1 clip", "x 5 / 0.5 + 0 1 clip"]
        {
            check(&network(formula), &["HardSigmoid"]);
        }
        check_declined(&network("x relu6ish x *"), &[]);
    }

    #[test]
    fn mish_but_neither_softplus_nor_swish() {
        check(&network("x x softplus tanh *"), &["Mish"]);
        check(&network("x softplus tanh x *"), &["Mish"]);
        for formula in ["1 x exp + log tanh x *", "x x sigmoid *", "x x 1.702 * sigmoid *"] {
            check_declined(&network(formula), &[]);
        }
    }

    #[test]
    fn relu_clip_and_leaky_relu() {
        check(&network("x 0 max"), &["Relu"]);
        check(&network("x 0 floor"), &["Relu"]);
        check(&network("x 0 inf clip"), &["Relu"]);
        check(&network("x 0 max 6 min"), &["Clip"]);
        check(&network("6 x min -1 max"), &["Clip"]);
        check(&network("x 0.1 x * max"), &["LeakyRelu"]);
        check_declined(&network("x 1.5 x * max"), &[]);
        check_declined(&network("x 1 floor"), &[]);
    }

    #[test]
    fn only_as_far_as_the_opset_goes() {
        for (formula, opset, name) in [
            ("x 0.5 * x 1.4142135 / erf 1 + *", 20, "Gelu"),
            ("x hardsigmoid x *", 14, "HardSwish"),
            ("x x softplus tanh *", 18, "Mish"),
        ] {
            let limited = |opset| Options { opset: Some(opset), ..Options::default() };
            check_with(&limited(opset), &network(formula), &[name]);
            let reason = format!("{name} is an operator of opset {opset}, the network keeps to {}", opset - 1);
            check_declined_with(&limited(opset - 1), &network(formula), &[&reason]);
        }
    }

    #[test]
    fn values_that_are_read_elsewhere_or_quantized_are_left() {
        let mut net = Net::new(2);
        let x = net.input(&[4]);
        let y = formula_of(&mut net, &x, "x x softplus tanh *");
        net.builder.output(&"tanh".into());
        check_declined(&net.finish(&y), &["`tanh` is read elsewhere, too"]);

        let mut net = Net::new(3);
        let bytes = net.builder.input("bytes", TensorType::new(DType::U8, [4usize]));
        let scale = net.scalar(0.1);
        let x = net.node(Op::DequantizeLinear(DequantizeLinear::default()), &[&bytes, &scale]);
        let y = formula_of(&mut net, &x, "x hardsigmoid x *");
        let simplified = simplify(&net.finish(&y), &Options::default()).expect("it fits");
        assert_eq!(simplified.declined[0].reason, "`dequantizelinear` is quantized");

        let mut net = Net::new(4);
        let x = net.input(&[4]);
        let one = net.positive(&[1, 1]);
        let y = net.node(Op::Mul, &[&x, &one]);
        let y = net.node(Op::Max, &[&x, &y]);
        let simplified = simplify(&net.finish(&y), &Options::default()).expect("it fits");
        assert_eq!(simplified.graph.nodes.len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn products_in_any_order(association in 0usize..6, half_first: bool, divided: bool, swapped: bool, tanh: bool) {
            let inner = if tanh { "x x 3 pow 0.044715 * + 0.7978846 * tanh" } else { "x 1.4142135 / erf" };
            let sum = if swapped { format!("1 {inner} +") } else { format!("{inner} 1 +") };
            let halved = |value: &str| match (divided, half_first) {
                (true, _) => format!("{value} 2 /"),
                (false, true) => format!("0.5 {value} *"),
                (false, false) => format!("{value} 0.5 *"),
            };
            let formula = match association {
                0 => format!("{} {sum} *", halved("x")),
                1 => format!("{sum} {} *", halved("x")),
                2 => format!("x {} *", halved(&sum)),
                3 => format!("{} x *", halved(&sum)),
                4 => halved(&format!("x {sum} *")),
                _ => halved(&format!("{sum} x *")),
            };
            check(&network(&formula), &["Gelu"]);
        }

        // lines that reach well above 0 somewhere: what is left of two numbers that cancel out is rounding, not a value
        #[test]
        fn lines_that_are_clipped(
            (alpha, beta) in prop_oneof![(0.01f32..3.0, 0.1f32..0.9), (0.7f32..3.0, -2.0f32..-0.1), (0.7f32..3.0, 0.1f32..2.0)]
        ) {
            check(&network(&format!("x {alpha} * {beta} + 0 1 clip")), &["HardSigmoid"]);
        }
    }
}
