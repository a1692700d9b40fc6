//! Types and small values, rule by rule.

use super::{Bindings, Note, Types, infer, infer_node, symbols};
use crate::graph::attribute::Attribute;
use crate::graph::op::{
    Concat, Constant, ConstantOfShape, Flatten, Gather, If, Loop, Range, Reshape, Shape, Transpose,
};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Node, Op, TensorType, ValueInfo};

fn node(op: Op, inputs: &[&str], output: &str) -> Node {
    let named = |&name: &&str| (name != "_").then(|| name.into());
    Node::new(op, inputs.iter().map(named).collect(), vec![Some(output.into())])
}

/// `batch,3,?` as dimensions.
fn dims(text: &str) -> Vec<Dim> {
    let dim = |text: &str| match text.parse() {
        Ok(size) => Dim::Known(size),
        Err(_) if text == "?" => Dim::Unknown,
        Err(_) => Dim::from(text),
    };
    text.split(',').filter(|dim| !dim.is_empty()).map(dim).collect()
}

/// A graph over `x` (floats of this shape) and constants `ints`, whose output is `y`.
fn graph(x: &str, constants: &[(&str, &[i64])], nodes: Vec<Node>) -> Graph {
    let mut builder = GraphBuilder::new("test");
    builder.input("x", TensorType { dtype: DType::F32, shape: (x != "..").then(|| dims(x)) });
    for &(name, values) in constants {
        builder.initializer(name, Tensor::vector(values.to_vec()));
    }
    nodes.into_iter().for_each(|node| builder.push(node));
    builder.output(&"y".into());
    builder.finish().expect("the graph is whole")
}

/// The type of `y`, or why there is none.
fn check(x: &str, constants: &[(&str, &[i64])], nodes: Vec<Node>, expected: &str) {
    let got = match infer(&graph(x, constants, nodes), &Bindings::default()) {
        Ok(types) => types.get("y").map_or_else(|| "unknown".to_string(), ToString::to_string),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expected, "x: {x}");
}

fn reshape() -> Op {
    Op::Reshape(Reshape::default())
}

fn op(name: &str, attributes: &[(&str, Attribute)]) -> Op {
    let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    Op::read("", name, attributes).expect("the attributes are the operator's")
}

#[test]
fn broadcasting_keeps_what_is_known() {
    let add = |y: &str| {
        let mut builder = GraphBuilder::new("test");
        let x = builder.input("x", TensorType { dtype: DType::F32, shape: Some(dims("batch,1,?")) });
        let other = builder.input("other", TensorType { dtype: DType::F32, shape: Some(dims(y)) });
        let sum = builder.node(Op::Add, &[&x, &other]);
        builder.output(&sum);
        let graph = builder.finish().expect("the graph is whole");
        let types = infer(&graph, &Bindings::default());
        types.map_or_else(|error| error.to_string(), |types| types.get("add").expect("typed").to_string())
    };
    assert_eq!(add("4,5"), "f32[batch, 4, 5]");
    assert_eq!(add("batch,4,1"), "f32[batch, 4, ?]");
    assert_eq!(add("7,4,1"), "f32[7, 4, ?]");
    assert_eq!(add("seq,1,1"), "f32[?, 1, ?]");
    check(
        "2,3",
        &[("w", &[1, 2])],
        vec![node(op("Cast", &[("to", Attribute::Int(1))]), &["w"], "f"), node(Op::Mul, &["x", "f"], "y")],
        "Mul `y`: the second shape should be one that broadcasts with [2, 3], got [2]",
    );
    check(
        "2,3",
        &[("w", &[1])],
        vec![node(Op::Mul, &["x", "w"], "y")],
        "Mul `y`: the type of input 1 should be f32, got i64",
    );
}

#[test]
fn shape_arithmetic_carries_symbols() {
    // the heads of attention: [batch, seq, 768] to [batch, seq, 12, 64]
    let heads = || {
        vec![
            node(Op::Shape(Shape { start: 0, end: None }), &["x"], "shape"),
            node(Op::Gather(Gather { axis: 0 }), &["shape", "zero"], "b"),
            node(Op::Gather(Gather { axis: 0 }), &["shape", "one"], "s"),
            node(Op::Concat(Concat { axis: 0 }), &["b", "s", "heads"], "target"),
            node(reshape(), &["x", "target"], "split"),
            node(Op::Transpose(Transpose { perm: vec![0, 2, 1, 3] }), &["split"], "y"),
        ]
    };
    let constants: &[(&str, &[i64])] = &[("zero", &[0]), ("one", &[1]), ("heads", &[12, -1])];
    check("batch,seq,768", constants, heads(), "f32[batch, 12, seq, 64]");
    check("2,seq,768", constants, heads(), "f32[2, 12, seq, 64]");
    check("?,?,768", constants, heads(), "f32[?, 12, ?, ?]");
    check("..", constants, heads(), "f32[?, 12, ?, ?]");
}

#[test]
fn expanding_to_a_symbolic_shape_goes_through_equal_and_where() {
    // what PyTorch's exporter writes for `expand(batch, -1, 4)`
    let nodes = vec![
        node(Op::Shape(Shape { start: 0, end: Some(1) }), &["x"], "b"),
        node(Op::Concat(Concat { axis: 0 }), &["b", "rest"], "target"),
        node(Op::ConstantOfShape(ConstantOfShape { value: Some(Tensor::vector(vec![1i64])) }), &["three"], "ones"),
        node(Op::Mul, &["ones", "minus"], "minus_ones"),
        node(Op::Equal, &["target", "minus_ones"], "is_minus_one"),
        node(Op::Where, &["is_minus_one", "ones", "target"], "shape"),
        node(Op::Expand, &["w", "shape"], "y"),
    ];
    let constants: &[(&str, &[i64])] = &[("rest", &[-1, 4]), ("three", &[3]), ("minus", &[-1]), ("w", &[7])];
    check("batch,5", constants, nodes, "i64[batch, 1, 4]");
    let constants: &[(&str, &[i64])] = &[("shape", &[2, 1, 1])];
    check("batch,5", constants, vec![node(Op::Expand, &["x", "shape"], "y")], "f32[2, batch, 5]");
}

#[test]
fn reshaping_says_what_it_can() {
    let check = |x: &str, target: &[i64], expected: &str| {
        check(x, &[("target", target)], vec![node(reshape(), &["x", "target"], "y")], expected);
    };
    check("2,3,4", &[6, -1], "f32[6, 4]");
    check("batch,3,4", &[0, -1], "f32[batch, 12]");
    check("batch,3,4", &[-1, 12], "f32[batch, 12]");
    check("batch,3,4", &[-1, 6], "f32[?, 6]");
    check("2,3", &[4, -1], "Reshape `y`: the new shape should be one that divides [2, 3], got [4]");
    check("2,3", &[4, 2], "Reshape `y`: the new shape should be one with the elements of [2, 3], got [4, 2]");
    check("2,3", &[-1, -1], "Reshape `y`: the new shape should be sizes and at most one -1, got [-1, -1]");
    check("2", &[2, 0], "Reshape `y`: the new shape should be one that keeps axes of [2], got another");
    check("..", &[-1, 6], "f32[?, 6]");
}

#[test]
fn hostile_numbers_take_no_memory() {
    let most = i64::MAX;
    let fill = Op::ConstantOfShape(ConstantOfShape { value: Some(Tensor::vector(vec![1i64])) });
    check("1", &[("shape", &[most, most])], vec![node(fill, &["shape"], "y")], &format!("i64[{most}, {most}]"));
    check("1", &[("n", &[most])], vec![node(Op::Tile, &["x", "n"], "y")], &format!("f32[{most}]"));
    let flatten = Op::Flatten(Flatten { axis: 3 });
    check("4294967296,4294967296,4294967296", &[], vec![node(flatten, &["x"], "y")], "f32[?, 1]");
    let concat = Op::Concat(Concat { axis: 0 });
    check("18446744073709551615", &[], vec![node(concat, &["x", "x"], "y")], "f32[?]");
    check("2", &[("pads", &[most, most])], vec![node(op("Pad", &[]), &["x", "pads"], "y")], "f32[?]");
}

#[test]
fn ranges_and_slices_are_counted() {
    let range = |start: i64, limit: i64, delta: i64| {
        let constant =
            |value: i64, name: &str| node(Op::Constant(Constant { value: Tensor::scalar(value) }), &[], name);
        let nodes = vec![
            constant(start, "start"),
            constant(limit, "limit"),
            constant(delta, "delta"),
            node(Op::Range(Range { stash_type: 1 }), &["start", "limit", "delta"], "y"),
        ];
        let types = infer(&graph("1", &[], nodes), &Bindings::default());
        types.map_or_else(|error| error.to_string(), |types| types.get("y").expect("typed").to_string())
    };
    assert_eq!(range(0, 10, 3), "i64[4]");
    assert_eq!(range(10, 0, -3), "i64[4]");
    assert_eq!(range(0, -1, 1), "i64[0]");
    assert_eq!(range(i64::MIN, i64::MAX, 1), "i64[18446744073709551615]");
    assert_eq!(range(0, 1, 0), "Range `y`: the step should be other than 0, got 0");

    let slice = |x: &str, start: i64, end: i64, step: i64, expected: &str| {
        let constants: &[(&str, &[i64])] = &[("start", &[start]), ("end", &[end]), ("axes", &[-1]), ("step", &[step])];
        check(x, constants, vec![node(Op::Slice, &["x", "start", "end", "axes", "step"], "y")], expected);
    };
    slice("2,10", 1, -1, 3, "f32[2, 3]");
    slice("2,10", -1, i64::MIN, -1, "f32[2, 10]");
    slice("2,10", 20, 30, 1, "f32[2, 0]");
    slice("2,seq", 0, i64::MAX, 1, "f32[2, seq]");
    slice("2,seq", 1, i64::MAX, 1, "f32[2, ?]");
    slice("2,0", -1, -5, -1, "f32[2, 0]");
}

#[test]
fn inputs_are_bound_by_symbol_or_shape() {
    let graph = graph("batch,3,?", &[], vec![node(Op::Relu, &["x"], "y")]);
    assert_eq!(symbols(&graph), [Name::from("batch")].into());
    let shown = |bindings: &Bindings| {
        let types = infer(&graph, bindings);
        types.map_or_else(|error| error.to_string(), |types| types.get("y").expect("typed").to_string())
    };
    let shape = |shape: &[usize]| Bindings { shapes: [("x".into(), shape.to_vec())].into(), ..Bindings::default() };
    assert_eq!(shown(&Bindings::default()), "f32[batch, 3, ?]");
    assert_eq!(shown(&Bindings::of([("batch", 2)])), "f32[2, 3, ?]");
    assert_eq!(shown(&shape(&[2, 3, 9])), "f32[2, 3, 9]");
    assert_eq!(shown(&shape(&[2, 4, 9])), "input `x` should be [batch, 3, ?], got [2, 4, 9]");
    assert_eq!(shown(&shape(&[2])), "input `x` should be [batch, 3, ?], got [2]");
    let both = Bindings { symbols: [("batch".into(), 5)].into(), ..shape(&[2, 3, 9]) };
    assert_eq!(shown(&both), "input `x` should be [5, 3, ?], got [2, 3, 9]");
    assert_eq!(shown(&Bindings::of([("n", 2)])), "no input has the symbol `n`; there is `batch`");
    let other = Bindings { shapes: [("z".into(), vec![1])].into(), ..Bindings::default() };
    assert_eq!(shown(&other), "no input has the name `z`; there is `x`");
}

#[test]
fn what_the_file_states_helps_but_does_not_stop() {
    let stated = |x: &str, stated: &str| {
        let mut parts = graph(x, &[], vec![node(Op::Relu, &["x"], "a"), node(Op::Neg, &["a"], "y")]).to_parts();
        let info = ValueInfo::new("a", TensorType { dtype: DType::F32, shape: Some(dims(stated)) });
        parts.value_info.insert("a".into(), info);
        let types = infer(&Graph::new(parts).expect("whole"), &Bindings::default()).expect("no reason to stop");
        let notes: Vec<String> = types.notes().iter().map(Note::to_string).collect();
        format!("{} {}", types.get("y").expect("typed"), notes.join("; ")).trim_end().to_string()
    };
    assert_eq!(stated("?,3", "2,3"), "f32[2, 3]");
    assert_eq!(stated("..", "2,n"), "f32[2, n]");
    assert_eq!(stated("4,3", "n,3"), "f32[4, 3]");
    assert_eq!(stated("batch,3", "1,3"), "f32[batch, 3] `a`: the file states f32[1, 3], it is f32[batch, 3]");
    assert_eq!(stated("4,3", "1,3"), "f32[4, 3] `a`: the file states f32[1, 3], it is f32[4, 3]");
    assert_eq!(stated("4,3", "3"), "f32[4, 3] `a`: the file states f32[3], it is f32[4, 3]");
}

fn branch(name: &str, op: Op, inputs: &[&str]) -> Graph {
    let mut builder = GraphBuilder::new(name);
    builder.push(node(op, inputs, name));
    builder.output(&name.into());
    builder.finish_body().expect("a body may capture")
}

#[test]
fn a_branch_that_is_not_taken_may_not_fit() {
    let network = |n: i64| {
        let nodes = vec![
            node(Op::Constant(Constant { value: Tensor::scalar(3i64) }), &[], "three"),
            node(Op::Constant(Constant { value: Tensor::scalar(n) }), &[], "n"),
            node(Op::Equal, &["three", "n"], "condition"),
            node(
                Op::If(If {
                    then_branch: branch("then", Op::Squeeze, &["x", "axis"]),
                    else_branch: branch("else", Op::Identity, &["x"]),
                }),
                &["condition"],
                "y",
            ),
        ];
        graph("3,1", &[("axis", &[0])], nodes)
    };
    let types = infer(&network(2), &Bindings::default()).expect("the identity is taken");
    assert_eq!(types.get("y").map(ToString::to_string).as_deref(), Some("f32[3, 1]"));
    assert_eq!(types.body(3, 1).and_then(|body| body.get("else")), types.get("y"));
    assert!(matches!(types.notes(), [Note::Unused { .. }]));
    let error = infer(&network(3), &Bindings::default()).expect_err("the squeeze is taken").to_string();
    assert_eq!(error, "If `y`: Squeeze `then`: a squeezed dimension should be 1, got 3");
}

#[test]
fn branches_of_different_shapes_leave_the_difference_open() {
    let mut builder = GraphBuilder::new("test");
    builder.input("x", TensorType::new(DType::F32, [2usize, 3]));
    let condition = builder.input("condition", TensorType { dtype: DType::Bool, shape: Some(Vec::new()) });
    let op = Op::If(If {
        then_branch: branch("then", Op::Transpose(Transpose { perm: vec![1, 0] }), &["x"]),
        else_branch: branch("else", Op::Flatten(Flatten { axis: 1 }), &["x"]),
    });
    let y = builder.node(op, &[&condition]);
    builder.output(&y);
    let graph = builder.finish().expect("the graph is whole");
    let types = infer(&graph, &Bindings::default()).expect("both fit");
    assert_eq!(types.get(&y).map(ToString::to_string).as_deref(), Some("f32[?, ?]"));
}

/// A loop that carries `v` through `op(v, x)` and collects `x`.
fn looping(op: Op, n: i64) -> Result<Types, String> {
    let mut body = GraphBuilder::new("body");
    body.input("i", TensorType { dtype: DType::I64, shape: Some(Vec::new()) });
    let go = body.input("go", TensorType { dtype: DType::Bool, shape: Some(Vec::new()) });
    body.input("v", TensorType::unranked(DType::F32));
    body.push(node(Op::Identity, &[&go], "goes_on"));
    body.push(node(op, &["v", "x"], "v_next"));
    body.push(node(Op::Identity, &["x"], "collected"));
    ["goes_on", "v_next", "collected"].iter().for_each(|&name| body.output(&name.into()));
    let body = body.finish_body().expect("a body may capture");
    let mut node = node(Op::Loop(Loop { body }), &["n", "_", "x"], "v_last");
    node.outputs.push(Some("y".into()));
    let constant = Node::new(Op::Constant(Constant { value: Tensor::scalar(n) }), Vec::new(), vec![Some("n".into())]);
    infer(&graph("2,3", &[], vec![constant, node]), &Bindings::default()).map_err(|error| error.to_string())
}

#[test]
fn a_loop_is_followed_until_nothing_changes() {
    let shown = |types: &Types, name: &str| types.get(name).expect("typed").to_string();
    let types = looping(Op::Add, 5).expect("the shapes fit");
    assert_eq!((shown(&types, "v_last"), shown(&types, "y")), ("f32[2, 3]".into(), "f32[5, 2, 3]".into()));
    let types = looping(Op::Concat(Concat { axis: 0 }), 5).expect("the shapes fit");
    assert_eq!((shown(&types, "v_last"), shown(&types, "y")), ("f32[?, 3]".into(), "f32[5, 2, 3]".into()));
    let error = looping(Op::Equal, 5).expect_err("the type changes");
    assert_eq!(error, "Loop `v_last`: the type of one of its values should be f32, got bool");
}

#[test]
fn nesting_has_an_end() {
    let mut inner = branch("y", Op::Identity, &["x"]);
    for depth in 0..40 {
        let name = format!("y{depth}");
        let mut builder = GraphBuilder::new("outer");
        let op = Op::If(If { then_branch: inner.clone(), else_branch: branch(&format!("z{depth}"), Op::Neg, &["x"]) });
        builder.push(node(op, &["condition"], &name));
        builder.output(&name.as_str().into());
        inner = builder.finish_body().expect("a body may capture");
    }
    let mut parts = inner.to_parts();
    parts.inputs.push(ValueInfo::new("x", TensorType::new(DType::F32, [1usize])));
    parts.inputs.push(ValueInfo::new("condition", TensorType { dtype: DType::Bool, shape: Some(Vec::new()) }));
    let error = infer(&Graph::new(parts).expect("whole"), &Bindings::default()).expect_err("too deep");
    assert!(error.to_string().ends_with("its graphs are nested too deep"), "{error}");
}

#[test]
fn what_is_opaque_is_unknown_and_says_so() {
    let opaque = Op::read("custom", "Thing", Vec::new()).expect("any attributes do");
    let graph = graph("2", &[], vec![node(opaque, &["x"], "a"), node(Op::Relu, &["a"], "y")]);
    let types = infer(&graph, &Bindings::default()).expect("nothing contradicts");
    assert_eq!((types.get("a"), types.get("y")), (None, None));
    assert_eq!(types.unresolved(&graph), ["a", "y"].map(Name::from));
}

#[test]
fn one_node_is_inferred_from_what_it_reads() {
    let graph = graph("2,3", &[], vec![node(Op::Relu, &["x"], "y")]);
    let types = infer(&graph, &Bindings::default()).expect("shapes fit");
    let flat = infer_node(&node(Op::Flatten(Flatten { axis: 0 }), &["y"], "flat"), &types).expect("it fits");
    assert_eq!(flat[0].as_ref().map(|typed| typed.value_type.to_string()).as_deref(), Some("f32[1, 6]"));
    let error = infer_node(&node(op("Concat", &[("axis", Attribute::Int(2))]), &["y"], "z"), &types);
    assert_eq!(error.expect_err("refused").to_string(), "Concat `z`: the axis should be one of 2 dimensions, got 2");
}

#[test]
fn products_need_the_same_inner_dimension() {
    let constants: &[(&str, &[i64])] = &[("shape", &[3, 5])];
    let product = |transposed: bool| {
        let perm = if transposed { vec![1, 0] } else { vec![0, 1] };
        vec![
            node(Op::ConstantOfShape(ConstantOfShape::default()), &["shape"], "w"),
            node(Op::Transpose(Transpose { perm }), &["w"], "v"),
            node(Op::MatMul, &["x", "v"], "y"),
        ]
    };
    check("batch,7,3", constants, product(false), "f32[batch, 7, 5]");
    check("3", constants, product(false), "f32[5]");
    check("batch,7,3", constants, product(true), "MatMul `y`: the inner dimension should be 3, got 5");
}
