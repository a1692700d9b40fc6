//! Files made by hand, message by message: what is read of them, and what is refused.

use bytes::Bytes;
use prost::Message;

use super::wire::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, ValueInfoProto, attribute_type,
};
use super::{OnnxError, read_bytes, tensor};
use crate::graph::op::If;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Model, Name, Node, Op, TensorType, ValueInfo};

pub(super) fn value(name: &str) -> ValueInfoProto {
    super::types::encode_value(&ValueInfo::new(name, TensorType::new(DType::F32, [2usize])))
}

pub(super) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(super) fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { op_type: op_type.into(), input: strings(inputs), output: strings(outputs), ..NodeProto::default() }
}

pub(super) fn call(function: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: "local".into(), ..node(function, inputs, outputs) }
}

pub(super) fn with(node: NodeProto, attributes: &[AttributeProto]) -> NodeProto {
    NodeProto { attribute: attributes.to_vec(), ..node }
}

pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::INT, i: Some(value), ..AttributeProto::default() }
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::FLOAT, f: Some(value), ..AttributeProto::default() }
}

pub(super) fn reference(name: &str, to: &str) -> AttributeProto {
    let name = name.into();
    AttributeProto { name, r#type: attribute_type::FLOAT, ref_attr_name: to.into(), ..AttributeProto::default() }
}

pub(super) fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: attribute_type::GRAPH,
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

pub(super) fn graph(inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: "g".into(),
        node: nodes,
        input: inputs.iter().map(|name| value(name)).collect(),
        output: outputs.iter().map(|name| value(name)).collect(),
        ..GraphProto::default()
    }
}

pub(super) fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.into(), version }
}

pub(super) fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![import("", 21), import("local", 1)],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub(super) fn function(name: &str, inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> FunctionProto {
    FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: strings(inputs),
        output: strings(outputs),
        node: nodes,
        opset_import: vec![import("", 21), import("local", 1)],
        ..FunctionProto::default()
    }
}

/// A network `x -> y` of these nodes, with these functions.
pub(super) fn network(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    ModelProto { functions, ..model(graph(&["x"], nodes, &["y"])) }
}

pub(super) fn load(proto: &ModelProto) -> Result<Model, OnnxError> {
    read_bytes(proto.encode_to_vec().into(), None)
}

pub(super) fn refusal(proto: &ModelProto) -> String {
    load(proto).expect_err("refused").to_string()
}

/// One node a line: `y = Add(x, w)`; bodies in braces.
fn listing(nodes: &[Node]) -> String {
    let join = |names: &[Option<Name>]| {
        names.iter().map(|name| name.as_ref().map_or("-", |name| name.as_str())).collect::<Vec<_>>().join(", ")
    };
    let line = |node: &Node| {
        let bodies: String = node.op.bodies().iter().map(|body| format!(" {{{}}}", listing(&body.nodes))).collect();
        format!("{} = {}({}){bodies}", join(&node.outputs), node.op.name(), join(&node.inputs))
    };
    nodes.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn check(proto: &ModelProto, expected: &str) {
    let model = load(proto).expect("a good file");
    assert_eq!(listing(&model.graph.nodes), expected);
    model.graph.check().expect("a checked graph");
}

#[test]
fn what_is_no_model_is_refused() {
    let good = network(vec![node("Relu", &["x"], &["y"])], vec![]);
    let check = |change: fn(&mut ModelProto), expected: &str| {
        let mut proto = good.clone();
        change(&mut proto);
        assert_eq!(refusal(&proto), expected);
    };
    assert!(load(&good).is_ok());
    check(|proto| proto.ir_version = None, "it states no version of the format");
    check(|proto| proto.ir_version = Some(2), "IR version 2 is outside 3 to 14");
    check(|proto| proto.ir_version = Some(15), "IR version 15 is outside 3 to 14");
    check(|proto| proto.ir_version = Some(-1), "IR version -1 is outside 3 to 14");
    check(|proto| proto.opset_import.clear(), "it imports no version of ONNX's own operators");
    check(|proto| proto.opset_import[0].version = 0, "ai.onnx operator set 0 is outside 1 to 28");
    check(|proto| proto.opset_import[0].version = 29, "ai.onnx operator set 29 is outside 1 to 28");
    check(|proto| proto.opset_import[1].version = -4, "local operator set -4 is outside 0 to 4294967295");
    check(|proto| proto.opset_import.push(import("ai.onnx", 20)), "it imports versions 21 and 20 of domain `ai.onnx`");
    check(|proto| proto.graph = None, "it holds no graph");
    check(
        |proto| proto.graph.get_or_insert_default().input[0].name.clear(),
        "an input, output or initializer has no name",
    );
    let scalar = tensor::encode("w", &Tensor::scalar(1f32));
    let mut twice = good.clone();
    twice.graph.get_or_insert_default().initializer = vec![scalar.clone(), scalar];
    assert_eq!(refusal(&twice), "two initializers are called `w`");
    let mut sparse = good.clone();
    sparse.graph.get_or_insert_default().sparse_initializer = vec![SparseTensorProto::default()];
    assert_eq!(refusal(&sparse), "tensor ``: element type 0 is unknown");
}

#[test]
fn what_the_graph_refuses_is_refused() {
    let dangling = network(vec![node("Relu", &["z"], &["y"])], vec![]);
    assert_eq!(refusal(&dangling), "Relu `y` reads `z`, which no input, initializer or node produces");
    let cycle = network(vec![node("Add", &["x", "y"], &["z"]), node("Relu", &["z"], &["y"])], vec![]);
    assert_eq!(refusal(&cycle), "Add `z` depends on its own output: the graph has a cycle");
}

#[test]
fn bytes_cut_off_anywhere_are_an_error_or_a_model_without_its_end() {
    let mut proto = network(vec![node("Relu", &["x"], &["y"])], vec![]);
    let mut weight = tensor::encode("w", &Tensor::vector(vec![1f32; 16]));
    proto.graph.get_or_insert_default().initializer.push(weight.clone());
    weight.raw_data = weight.raw_data.map(|raw| raw.slice(1..));
    let whole = Bytes::from(proto.encode_to_vec());
    for n_bytes in 0..whole.len() {
        match read_bytes(whole.slice(..n_bytes), None) {
            Err(OnnxError::Protobuf(_) | OnnxError::Model(_)) => {}
            Err(error) => assert_eq!((n_bytes, error.to_string()), (0, "this is an empty file, no ONNX model".into())),
            Ok(model) => assert!(model.domains.is_empty(), "the imports stand last"),
        }
    }
    let noise = read_bytes(Bytes::from_static(b"\x0a\x05noise\xff"), None).expect_err("no model");
    assert!(noise.hint().is_some_and(|hint| hint.contains("no ONNX file")), "{noise}");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let bytes = network(vec![node("Relu", &["x"], &["y"])], vec![]).encode_to_vec();
    let at = bytes.windows(4).position(|four| four == b"Relu").expect("the operator is in there");
    let mut broken = bytes;
    broken[at] = 0xff;
    assert!(matches!(read_bytes(broken.into(), None), Err(OnnxError::Protobuf(_))));
}

#[test]
fn attributes_must_be_what_they_say() {
    let check = |attributes: &[AttributeProto], expected: &str| {
        let proto = network(vec![with(node("LeakyRelu", &["x"], &["y"]), attributes)], vec![]);
        assert_eq!(refusal(&proto), expected);
    };
    let untyped = |number| AttributeProto { r#type: number, ..int("alpha", 1) };
    check(&[untyped(0)], "LeakyRelu `y`: attribute `alpha`: has no type");
    check(&[untyped(77)], "LeakyRelu `y`: attribute `alpha`: is of an unknown type");
    for kind in [attribute_type::GRAPH, attribute_type::TENSOR, attribute_type::SPARSE_TENSOR] {
        check(&[untyped(kind)], "LeakyRelu `y`: attribute `alpha`: has no value");
    }
    check(&[float("alpha", 1.0), float("alpha", 1.0)], "LeakyRelu `y`: attribute `alpha`: is given twice");
    check(&[reference("alpha", "a")], "LeakyRelu `y`: attribute `alpha`: refers to a function's, outside any function");
    check(&[int("alpha", 1)], "LeakyRelu `y`: attribute `alpha` should be a float, got Int(1)");
    let tensor = AttributeProto { t: Some(Box::default()), ..untyped(attribute_type::TENSOR) };
    check(&[tensor], "LeakyRelu `y`: attribute `alpha`: tensor ``: element type 0 is unknown");
}

#[test]
fn initializers_among_the_inputs_are_constants_before_ir_4_and_overridable_after() {
    let mut graph = graph(&["x", "w"], vec![node("Add", &["x", "w"], &["y"])], &["y"]);
    graph.initializer.push(tensor::encode("w", &Tensor::vector(vec![1f32, 2.0])));
    let read = |ir_version| {
        let proto = ModelProto { ir_version: Some(ir_version), ..model(graph.clone()) };
        let graph = load(&proto).expect("a good file").graph;
        (graph.inputs.len(), graph.overridable.len())
    };
    assert_eq!(read(3), (1, 0));
    assert_eq!(read(4), (1, 1));
}

pub(super) fn branches(then_branch: GraphProto, else_branch: GraphProto) -> NodeProto {
    with(node("If", &["c"], &["y"]), &[body("then_branch", then_branch), body("else_branch", else_branch)])
}

pub(super) fn condition() -> NodeProto {
    let flag = tensor::encode("", &Tensor::scalar(true));
    let flag = AttributeProto { t: Some(Box::new(flag)), r#type: attribute_type::TENSOR, ..int("value", 0) };
    with(node("Constant", &[], &["c"]), &[AttributeProto { i: None, ..flag }])
}

#[test]
fn bodies_see_the_names_around_them_and_do_not_shadow_them() {
    let inner = |output| graph(&[], vec![node("Neg", &["x"], &[output])], &[output]);
    let proto = network(vec![condition(), branches(inner("a"), inner("a"))], vec![]);
    check(&proto, "c = Constant(); y = If(c) {a = Neg(x)} {a = Neg(x)}");
    let shadowing = graph(&[], vec![node("Neg", &["x"], &["c"]), node("Abs", &["c"], &["y"])], &["y"]);
    let proto = network(vec![condition(), branches(shadowing.clone(), inner("a"))], vec![]);
    check(&proto, "c = Constant(); y = If(c) {c_2 = Neg(x); y_2 = Abs(c_2)} {a = Neg(x)}");
    let deeper = graph(&[], vec![branches(shadowing, inner("b"))], &["y"]);
    let proto = network(vec![condition(), branches(deeper, inner("a"))], vec![]);
    check(&proto, "c = Constant(); y = If(c) {y_2 = If(c) {c_2 = Neg(x); y_3 = Abs(c_2)} {b = Neg(x)}} {a = Neg(x)}");
    let ambiguous = graph(&[], vec![node("Not", &["c"], &["n"]), node("Neg", &["x"], &["c"])], &["c"]);
    let proto = network(vec![condition(), branches(ambiguous, inner("a"))], vec![]);
    assert_eq!(
        refusal(&proto),
        "If `y`: attribute `then_branch`: Not `n`: reads `c`, which both its body, further on, and the graph around it \
         define"
    );
}

#[test]
fn bodies_too_deep_are_refused() {
    let mut inner = graph(&[], vec![node("Neg", &["x"], &["y"])], &["y"]);
    for _ in 0..60 {
        inner = graph(&[], vec![branches(inner, GraphProto::default())], &["y"]);
    }
    let error = load(&network(vec![condition(), branches(inner, GraphProto::default())], vec![]));
    assert!(matches!(error, Err(OnnxError::Protobuf(_))), "prost has a limit of its own");
}

#[test]
fn functions_are_put_in_the_place_of_their_calls() {
    let half = function("Half", &["a"], vec![node("Neg", &["a"], &["t"]), node("Abs", &["t"], &["b"])], &["b"]);
    let twice = network(vec![call("Half", &["x"], &["m"]), call("Half", &["m"], &["y"])], vec![half.clone()]);
    check(&twice, "m/t = Neg(x); m = Abs(m/t); y/t = Neg(m); y = Abs(y/t)");
    let nested = function("Outer", &["p"], vec![call("Half", &["p"], &["t"]), node("Exp", &["t"], &["q"])], &["q"]);
    let mut named = call("Outer", &["x"], &["y"]);
    named.name = "layer".into();
    check(&network(vec![named], vec![half, nested]), "layer/t/t = Neg(x); layer/t = Abs(layer/t/t); y = Exp(layer/t)");
}

#[test]
fn functions_have_optional_inputs_and_pass_values_through() {
    let clip = function("Bound", &["a", "low"], vec![node("Clip", &["a", "low"], &["b"])], &["b", "a", "b"]);
    let both = vec![call("Bound", &["x"], &["b", "copy", "again"]), node("Sum", &["b", "copy", "again"], &["y"])];
    check(
        &network(both, vec![clip.clone()]),
        "b = Clip(x, -); copy = Identity(x); again = Identity(b); y = Sum(b, copy, again)",
    );
    check(&network(vec![call("Bound", &["x", ""], &["y"])], vec![clip]), "y = Clip(x, -)");
}

#[test]
fn functions_have_attributes_with_defaults() {
    let leak = |attributes: &[AttributeProto]| {
        let nodes = vec![with(node("LeakyRelu", &["a"], &["b"]), &[reference("alpha", "slope")])];
        let mut leak = function("Leak", &["a"], nodes, &["b"]);
        leak.attribute_proto = attributes.to_vec();
        leak
    };
    let alpha = |given: &[AttributeProto], defaults: &[AttributeProto]| {
        let proto = network(vec![with(call("Leak", &["x"], &["y"]), given)], vec![leak(defaults)]);
        match &load(&proto).expect("a good file").graph.nodes[0].op {
            Op::LeakyRelu(leaky) => leaky.alpha,
            other => panic!("expected LeakyRelu, got {other:?}"),
        }
    };
    assert_eq!(alpha(&[], &[]), 0.01);
    assert_eq!(alpha(&[], &[float("slope", 0.5)]), 0.5);
    assert_eq!(alpha(&[float("slope", 0.25)], &[float("slope", 0.5)]), 0.25);
}

#[test]
fn functions_have_their_own_operator_sets() {
    let axes = AttributeProto { ints: vec![0], r#type: attribute_type::INTS, i: None, ..int("axes", 0) };
    let mut old = function("Old", &["a"], vec![with(node("Unsqueeze", &["a"], &["b"]), &[axes])], &["b"]);
    old.opset_import = vec![import("", 11), import("theirs", 2)];
    let model = load(&network(vec![call("Old", &["x"], &["y"])], vec![old.clone()])).expect("a good file");
    assert_eq!(model.graph.nodes[0].inputs.len(), 2, "axes have become an input");
    old.node = vec![NodeProto { domain: "theirs".into(), ..node("Secret", &["a"], &["b"]) }];
    let theirs = network(vec![call("Old", &["x"], &["y"])], vec![old.clone()]);
    assert_eq!(load(&theirs).expect("a good file").domains.get("theirs"), Some(&2));
    let mut both = theirs;
    both.opset_import.push(import("theirs", 1));
    assert!(
        refusal(&both).ends_with("is of version 2 of its operator set, the file is of 1, and we cannot convert it")
    );
    old.node = vec![node("Unheard", &["a"], &["b"])];
    let own = network(vec![call("Old", &["x"], &["y"])], vec![old]);
    assert!(
        refusal(&own).ends_with("is of version 11 of its operator set, the file is of 21, and we cannot convert it")
    );
}

#[test]
fn bodies_in_functions_get_names_of_their_own() {
    let branch = || graph(&[], vec![node("Neg", &["a"], &["x"])], &["x"]);
    let choose = with(node("If", &["c"], &["b"]), &[body("then_branch", branch()), body("else_branch", branch())]);
    let choice = function("Choice", &["a"], vec![condition(), choose], &["b"]);
    check(
        &network(vec![call("Choice", &["x"], &["y"])], vec![choice]),
        "y/c = Constant(); y = If(y/c) {x_2 = Neg(x)} {x_3 = Neg(x)}",
    );
    let ambiguous = || graph(&[], vec![node("Neg", &["a"], &["n"]), node("Exp", &["n"], &["a"])], &["a"]);
    let choose =
        with(node("If", &["c"], &["b"]), &[body("then_branch", ambiguous()), body("else_branch", ambiguous())]);
    let choice = function("Choice", &["a"], vec![condition(), choose], &["b"]);
    let message = refusal(&network(vec![call("Choice", &["x"], &["y"])], vec![choice]));
    let expected = "Neg `n`: reads `a`, which both its body, further on, and the graph around it define";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn functions_that_cannot_be_inlined_are_refused() {
    let check = |functions: Vec<FunctionProto>, nodes: Vec<NodeProto>, expected: &str| {
        let message = refusal(&network(nodes, functions));
        assert!(message.ends_with(expected), "{message}");
    };
    let one = |nodes| vec![function("F", &["a"], nodes, &["b"])];
    let calls = || vec![call("F", &["x"], &["y"])];
    let negate = || vec![node("Neg", &["a"], &["b"])];
    check(one(vec![call("F", &["a"], &["b"])]), calls(), "function `local.F` calls itself");
    let other = function("G", &["a"], vec![call("F", &["a"], &["b"])], &["b"]);
    let mutual = vec![function("F", &["a"], vec![call("G", &["a"], &["b"])], &["b"]), other];
    check(mutual, calls(), "function `local.F` calls itself");
    check(one(vec![node("Neg", &["x"], &["b"])]), calls(), "`x` is none of the function's values");
    check(one(vec![node("Neg", &["a"], &["a"])]), calls(), "it computes its own input `a`");
    let two = vec![call("F", &["x", "x"], &["y"])];
    check(one(negate()), two, "it takes at most 1 inputs, the call has 2");
    let two = vec![call("F", &["x"], &["y", "z"])];
    check(one(negate()), two, "it takes at most 1 outputs, the call has 2");
    check([one(negate()), one(negate())].concat(), calls(), "two functions are called `local.F`");
    let overload = vec![NodeProto { overload: "v2".into(), ..call("F", &["x"], &["y"]) }];
    check(one(negate()), overload, "F `y`: calls overload `v2`, which the file does not define");
    check(one(vec![]), calls(), "the list of outputs reads `y`, which no input, initializer or node produces");
}

#[test]
fn functions_that_unfold_without_end_are_refused() {
    let name = |level: usize| format!("F{level}");
    let chain = |n_levels: usize, n_calls: usize| {
        let mut functions = vec![function("F0", &["a"], vec![node("Neg", &["a"], &["b"])], &["b"])];
        for level in 1..n_levels {
            let mut nodes = vec![call(&name(level - 1), &["a"], &["b"])];
            nodes.extend((1..n_calls).map(|idx| call(&name(level - 1), &["a"], &[&format!("c{idx}")])));
            functions.push(function(&name(level), &["a"], nodes, &["b"]));
        }
        network(vec![call(&name(n_levels - 1), &["x"], &["y"])], functions)
    };
    assert!(load(&chain(30, 1)).is_ok());
    assert!(refusal(&chain(100, 1)).ends_with("more than 64 bodies and function calls in one another"));
    let unfolds = "its functions unfold to more than 65536 nodes or 33554432 bytes";
    assert!(refusal(&chain(20, 10)).ends_with(unfolds));
    let floats = TensorProto { raw_data: None, float_data: vec![0.5; 1 << 20], ..TensorProto::default() };
    let large = TensorProto { data_type: DType::F32.onnx(), dims: vec![1 << 20], ..floats };
    let large = AttributeProto { t: Some(Box::new(large)), r#type: attribute_type::TENSOR, i: None, ..int("value", 0) };
    let nodes = vec![with(node("Constant", &[], &["c"]), &[large]), node("Add", &["a", "c"], &["b"])];
    let calls = (0..100).map(|idx| call("F", &["x"], &[&format!("y{idx}")])).collect();
    let refused = refusal(&network(calls, vec![function("F", &["a"], nodes, &["b"])]));
    assert!(refused.starts_with("its functions unfold to more than 262144 nodes or 1342"), "{refused}");
}

#[test]
fn attributes_of_calls_count_wherever_they_are_put() {
    let unfolds = "its functions unfold to more than 65536 nodes or 33554432 bytes";
    let check = |given: AttributeProto, n_uses: usize| {
        let kind = given.r#type;
        let refers = AttributeProto { r#type: kind, ..reference("value", "given") };
        let mut nodes: Vec<_> = (0..n_uses)
            .map(|idx| with(call("Custom", &["a"], &[&format!("c{idx}")]), std::slice::from_ref(&refers)))
            .collect();
        nodes.push(node("Neg", &["a"], &["b"]));
        let calls = vec![with(call("F", &["x"], &["y"]), &[AttributeProto { name: "given".into(), ..given }])];
        load(&network(calls, vec![function("F", &["a"], nodes, &["b"])])).map_err(|error| error.to_string())
    };
    let ints = AttributeProto { ints: vec![1; 1 << 14], r#type: attribute_type::INTS, i: None, ..int("", 0) };
    assert!(check(ints.clone(), 10).is_ok());
    assert!(check(ints, 600).is_err_and(|message| message.ends_with(unfolds)));
    let nodes = (0..1000).map(|idx| node("Neg", &["x"], &[&format!("z{idx}")])).collect();
    let inner = body("", graph(&[], nodes, &["z0"]));
    assert!(check(inner.clone(), 10).is_ok());
    assert!(check(inner, 100).is_err_and(|message| message.ends_with(unfolds)));
}

#[test]
fn a_name_repeated_without_end_costs_no_search() {
    let nodes = vec![node("Neg", &["a"], &["t"]), node("Neg", &["t"], &["b"])];
    let calls = (0..50_000).map(|idx| {
        let outputs = if idx == 0 { vec!["y".to_string()] } else { vec![format!("y{idx}")] };
        NodeProto { name: "same".into(), output: outputs, ..call("F", &["x"], &[]) }
    });
    let model = load(&network(calls.collect(), vec![function("F", &["a"], nodes, &["b"])])).expect("a good file");
    assert_eq!(model.graph.nodes.len(), 100_000);
}

#[test]
fn opaque_nodes_keep_their_bodies() {
    let inner = graph(&[], vec![node("Neg", &["x"], &["z"])], &["z"]);
    let custom = with(call("Custom", &["x"], &["y"]), &[body("whatever", inner)]);
    let model = load(&network(vec![custom], vec![])).expect("a good file");
    assert_eq!(listing(&model.graph.nodes), "y = Custom(x) {z = Neg(x)}");
    assert!(matches!(model.graph.nodes[0].op, Op::Opaque(_)));
    assert!(!matches!(model.graph.nodes[0].op, Op::If(If { .. })));
}
