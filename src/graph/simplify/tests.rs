//! What the tests of the rewrites share, and those of all of them together.

use indexmap::IndexMap;
use proptest::prelude::*;

use super::{Options, Simplified, simplify};
use crate::graph::attribute::Attribute;
use crate::graph::eval;
use crate::graph::shape::{self, Bindings};
use crate::graph::show::show;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphParts, Name, Node, Op, TensorType, ValueInfo};

/// Every symbol's and unknown dimension's size in the tests.
const OPEN_SIZE: usize = 3;

/// A graph of lines: `in x: f32[n, 3]`, `init w: f32[3] 1 2 3` (numbers of its own where none are given), `open w: …` for
/// one that a caller may override, `out y`, `y, z = Split(x, _) {axis=1, perm=[1, 0], mode="edge"}`.
pub(super) fn graph(text: &str) -> Graph {
    let mut parts = GraphParts { name: "test".to_string(), ..GraphParts::default() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(' ') {
            Some(("in", rest)) => {
                let (name, of) = rest.split_once(": ").expect("an input has a type");
                parts.inputs.push(ValueInfo::new(name, tensor_type(of)));
            }
            Some((kind @ ("init" | "open"), rest)) => {
                let (name, of) = rest.split_once(": ").expect("a constant has a type");
                let (of, elements) = of.split_once("] ").unwrap_or((of, ""));
                parts.initializers.insert(name.into(), constant(&tensor_type(of), elements));
                if kind == "open" {
                    parts.overridable.insert(name.into());
                }
            }
            Some(("out", name)) => parts.outputs.push(ValueInfo::untyped(name)),
            _ => parts.nodes.push(node(line)),
        }
    }
    Graph::new(parts).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

fn tensor_type(text: &str) -> TensorType {
    let (dtype, dims) = text.trim_end_matches(']').split_once('[').expect("a type has dimensions");
    let dims = dims.split(", ").filter(|dim| !dim.is_empty()).map(|dim| match (dim, dim.parse()) {
        ("?", _) => Dim::Unknown,
        (_, Ok(size)) => Dim::Known(size),
        (symbol, Err(_)) => Dim::from(symbol),
    });
    TensorType::new(DType::from_name(dtype).expect("an element type"), dims)
}

fn constant(of: &TensorType, elements: &str) -> Tensor {
    let shape = of.known_shape().expect("a constant's dimensions are known");
    let numbers: Vec<f64> = elements.split_whitespace().map(|x| x.parse().expect("a number")).collect();
    match numbers.as_slice() {
        [] => filled(of.dtype, &shape, 1),
        [one] => of_numbers(of.dtype, &shape, &vec![*one; shape.iter().product()]),
        numbers => of_numbers(of.dtype, &shape, numbers),
    }
}

fn of_numbers(dtype: DType, shape: &[usize], numbers: &[f64]) -> Tensor {
    let floats = Tensor::new(shape, numbers.to_vec()).expect("as many numbers as the shape has");
    let cast = crate::graph::op::Cast { to: dtype, saturate: true, round_mode: crate::graph::op::RoundMode::Up };
    let cast = eval::operator(&Op::Cast(cast), &[Some(floats)], 1).expect("numbers can be cast");
    cast.into_iter().flatten().next().expect("a cast has an output")
}

/// A tensor of numbers that differ, between -2 and 2 for floats, small and not negative for integers.
fn filled(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    let numbers: Vec<f64> = match dtype.is_float() {
        true => (0..n).map(|_| next() * 4.0 - 2.0).collect(),
        false => (0..n).map(|_| (next() * 2.0).floor()).collect(),
    };
    of_numbers(dtype, shape, &numbers)
}

fn node(line: &str) -> Node {
    let (outputs, call) = line.split_once(" = ").expect("a node has outputs");
    let (op, rest) = call.split_once('(').expect("a node has inputs");
    let (inputs, attributes) = rest.split_once(')').expect("the inputs end");
    let names = |text: &str| {
        let names = text.split(", ").filter(|name| !name.is_empty());
        names.map(|name| (name != "_").then(|| Name::from(name))).collect::<Vec<Option<Name>>>()
    };
    let attributes = attributes.trim().trim_start_matches('{').trim_end_matches('}');
    let attributes = attributes.split(';').map(str::trim).filter(|text| !text.is_empty()).map(attribute).collect();
    let op = Op::read("", op, attributes).expect("an operator");
    Node::new(op, names(inputs), names(outputs))
}

fn attribute(text: &str) -> (String, Attribute) {
    let (name, value) = text.split_once('=').expect("an attribute has a value");
    let integers = |text: &str| text.split(", ").map(|x| x.parse().expect("an integer")).collect();
    let value = match (value.strip_prefix('['), value.strip_prefix('"')) {
        (Some(list), _) => Attribute::Ints(integers(list.trim_end_matches(']'))),
        (_, Some(text)) => Attribute::String(text.trim_end_matches('"').to_string().into()),
        _ => value.parse().map(Attribute::Int).unwrap_or_else(|_| Attribute::Float(value.parse().expect("a number"))),
    };
    (name.to_string(), value)
}

/// Inputs for a graph.
pub(super) fn inputs(graph: &Graph) -> IndexMap<Name, Tensor> {
    let input = |(idx, info): (usize, &ValueInfo)| {
        let of = info.tensor_type().expect("inputs have types");
        let dims = of.shape.as_ref().expect("inputs have dimensions").iter();
        let shape: Vec<usize> = dims.map(|dim| dim.known().unwrap_or(OPEN_SIZE)).collect();
        (info.name.clone(), filled(of.dtype, &shape, idx as u64 + 2))
    };
    graph.inputs.iter().enumerate().map(input).collect()
}

/// That both graphs give the same, within 1e-5 of the largest magnitude of each output.
pub(super) fn same_outputs(before: &Graph, after: &Graph) {
    let inputs = inputs(before);
    let expected = eval::run(before, &inputs).unwrap_or_else(|error| panic!("{error}\n{}", show(before)));
    let got = eval::run(after, &inputs).unwrap_or_else(|error| panic!("{error}\n{}", show(after)));
    assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        let got = &got[name];
        assert_eq!((expected.dtype(), expected.shape()), (got.dtype(), got.shape()), "{name}\n{}", show(after));
        let numbers = |tensor: &Tensor| of_numbers_back(tensor);
        let (expected, got) = (numbers(expected), numbers(got));
        let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        let apart = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-5 * largest && a.is_nan() == b.is_nan();
        let differs = expected.iter().zip(&got).any(apart);
        assert!(!differs, "{name}: {expected:?}, then {got:?}\n{}", show(after));
    }
}

fn of_numbers_back(tensor: &Tensor) -> Vec<f64> {
    let tensor = of_numbers_cast(tensor, DType::F64);
    tensor.to_vec().expect("a tensor of f64")
}

fn of_numbers_cast(tensor: &Tensor, to: DType) -> Tensor {
    let cast = crate::graph::op::Cast { to, saturate: true, round_mode: crate::graph::op::RoundMode::Up };
    let cast = eval::operator(&Op::Cast(cast), &[Some(tensor.clone())], 1).expect("numbers can be cast");
    cast.into_iter().flatten().next().expect("a cast has an output")
}

/// Simplifies, and checks what always holds: the result is a graph whose types fit, computes the same, has no more nodes,
/// and is as simple as it gets.
pub(super) fn simplified(before: &Graph, options: &Options) -> Simplified {
    let after = simplify(before, options).unwrap_or_else(|error| panic!("{error}\n{}", show(before)));
    after.graph.check().unwrap_or_else(|error| panic!("{error}\n{}", show(&after.graph)));
    shape::infer(&after.graph, &Bindings::default()).expect("types fit");
    same_outputs(before, &after.graph);
    assert!(after.graph.nodes.len() <= before.nodes.len(), "{}\nfrom\n{}", show(&after.graph), show(before));
    let again = simplify(&after.graph, options).expect("it was simplified before");
    assert_eq!(show(&after.graph), show(&again.graph), "twice is once: {:?}", again.applied);
    after
}

/// The nodes and small constants that are left of a graph.
#[track_caller]
pub(super) fn check(text: &str, expected: &str) {
    check_with(&Options::default(), text, expected);
}

/// As [`check`], with these options.
#[track_caller]
pub(super) fn check_with(options: &Options, text: &str, expected: &str) {
    let shown = show(&simplified(&graph(text), options).graph);
    let is_kept = |line: &&str| line.starts_with("  init") || line.contains(" = ");
    let lines: Vec<&str> = shown.lines().filter(is_kept).map(str::trim).collect();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.join("\n"), expected.join("\n"));
}

/// That nothing is done, and why: all these words stand in what is declined.
#[track_caller]
pub(super) fn check_declined(text: &str, words: &[&str]) {
    let before = graph(text);
    let after = simplified(&before, &Options::default());
    assert_eq!(show(&before), show(&after.graph));
    let reasons: Vec<String> = after.declined.iter().map(|declined| declined.reason.clone()).collect();
    for word in words {
        assert!(reasons.iter().any(|reason| reason.contains(word)), "{reasons:?}");
    }
}

/// That nothing is done.
#[track_caller]
pub(super) fn check_kept(text: &str) {
    check_declined(text, &[]);
}

mod folding;
mod layouts;
mod tidying;

/// One step of a random graph: what to do with which of the values so far.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    first: usize,
    second: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..22u8, 0..8usize, 0..8usize).prop_map(|(kind, first, second)| Step { kind, first, second });
    prop::collection::vec(step, 1..14)
}

/// A graph of these steps on `f32[2, 3, 4]` values, permuted or not; every value that nothing reads is an output, and some
/// that something does.
fn random(steps: &[Step]) -> Graph {
    let mut text =
        String::from("in x: f32[2, n, 4]\ninit c: f32[4]\ninit s: f32[] 0.5\ninit zero: f32[] 0\ninit one: f32[1] 1\n");
    text.push_str("init axis: i64[1] 1\ninit last: i64[1] -1\ninit starts: i64[1] 0\ninit ends: i64[1] 99\ninit keep: i64[3] 0 0 0\n");
    let mut values = vec![("x".to_string(), [0usize, 1, 2])];
    let mut read = std::collections::BTreeSet::new();
    for (idx, step) in steps.iter().enumerate() {
        let back = |n: usize| values[values.len() - 1 - n % values.len()].clone();
        let ((a, order), (b, other)) = (back(step.first), back(step.second));
        let y = format!("v{idx}");
        let (line, after) = match step.kind {
            0 | 1 => (format!("{y} = Transpose({a}) {{perm=[0, 2, 1]}}"), [order[0], order[2], order[1]]),
            2 => (format!("{y} = Transpose({a}) {{perm=[1, 2, 0]}}"), [order[1], order[2], order[0]]),
            3 => (format!("{y} = Transpose({a}) {{perm=[2, 0, 1]}}"), [order[2], order[0], order[1]]),
            4 => (format!("{y} = Relu({a})"), order),
            5 => (format!("{y} = Sigmoid({a})"), order),
            6 if order == other => (format!("{y} = Add({a}, {b})"), order),
            6 | 7 if order[2] == 2 => (format!("{y} = Mul({a}, c)"), order),
            6..=8 => (format!("{y} = Add({a}, s)"), order),
            9 => (format!("{y} = Add({a}, zero)"), order),
            10 => (format!("{y} = Mul({a}, one)"), order),
            11 => (format!("{y} = Softmax({a}) {{axis=1}}"), order),
            12 => (format!("{y}_r = ReduceMax({a}, axis)\n{y} = Sub({a}, {y}_r)"), order),
            13 if order == other => (format!("{y} = Max({a}, {b})"), order),
            13 | 14 => (format!("{y} = Identity({a})"), order),
            15 => (format!("{y} = Slice({a}, starts, ends, last)"), order),
            16 => (format!("{y}_u = Unsqueeze({a}, axis)\n{y} = Squeeze({y}_u, axis)"), order),
            17 => (format!("{y} = Reshape({a}, keep)"), order),
            18 => (format!("{y}_s = Shape({a})\n{y} = Reshape({a}, {y}_s)"), order),
            19 => (
                format!("{y}_a, {y}_b = Split({a}, _) {{axis=0;num_outputs=2}}\n{y} = Concat({y}_a, {y}_b) {{axis=0}}"),
                order,
            ),
            20 => (format!("{y}_s = Shape({a})\n{y}_z = ConstantOfShape({y}_s)\n{y} = Add({a}, {y}_z)"), order),
            _ => (format!("{y} = Clip({a}, zero, _)"), order),
        };
        // two of one value make no split
        let split = line.contains("Split") && order[0] == 1;
        let line = if split { format!("{y} = Relu({a})") } else { line };
        read.insert(a);
        if line.contains(&format!(", {b})")) {
            read.insert(b);
        }
        text.push_str(&line);
        text.push('\n');
        values.push((y, after));
    }
    for (idx, (name, _)) in values.iter().enumerate().skip(1) {
        if !read.contains(name) || idx % 5 == 0 {
            text.push_str(&format!("out {name}\n"));
        }
    }
    graph(&text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_compute_the_same(steps in steps()) {
        let before = random(&steps);
        let after = simplified(&before, &Options::default());
        let n_transposes = |graph: &Graph| graph.nodes.iter().filter(|node| matches!(node.op, Op::Transpose(_))).count();
        prop_assert!(n_transposes(&after.graph) <= n_transposes(&before));
    }
}
