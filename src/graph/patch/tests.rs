//! Patches that apply, patches that are refused, and random ones.

use proptest::prelude::*;

use super::{Patch, Place, map_bodies};
use crate::graph::op::{Cast, If, Reshape};
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::show::show;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, GraphBuilder, Name, Node, Op, TensorType, ValueInfo};

fn node(op: Op, inputs: &[&str], output: &str) -> Node {
    Node::new(op, inputs.iter().map(|&name| Some(name.into())).collect(), vec![Some(output.into())])
}

/// `x -> Neg a -> Add(a, w) b -> Exp y`, `x` and `y` of 4 floats.
fn chain() -> Graph {
    let mut builder = GraphBuilder::new("chain");
    builder.input("x", TensorType::new(DType::F32, [4usize]));
    builder.initializer("w", Tensor::vector(vec![1f32, 2.0, 3.0, 4.0]));
    builder.push(node(Op::Neg, &["x"], "a"));
    builder.push(node(Op::Add, &["a", "w"], "b"));
    builder.push(node(Op::Exp, &["b"], "y"));
    builder.typed_output(&"y".into(), TensorType::new(DType::F32, [4usize]));
    builder.finish().expect("the graph is whole")
}

fn types(graph: &Graph) -> Types {
    infer(graph, &Bindings::default()).expect("shapes fit")
}

/// The nodes of the chain after an edit, or why it is refused.
fn check(edit: impl FnOnce(&mut Patch), expected: &str) {
    let graph = chain();
    let mut patch = Patch::new(&graph);
    edit(&mut patch);
    let got = match patch.apply(Some(&types(&graph))) {
        Ok(patched) => {
            patched.check().expect("a patched graph is a graph");
            let nodes = show(&patched);
            let lines = nodes.lines().filter(|line| line.contains(" = ")).map(str::trim);
            lines.collect::<Vec<_>>().join("; ")
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expected);
}

#[test]
fn nodes_are_inserted_replaced_and_removed() {
    check(|_| {}, "%a = Neg(%x); %b = Add(%a, %w); %y = Exp(%b)");
    check(
        |patch| {
            patch.insert(Place::After(0), node(Op::Relu, &["a"], "r"));
            patch.replace_uses(&"a".into(), &"r".into());
        },
        "%a = Neg(%x); %r = Relu(%a); %b = Add(%r, %w); %y = Exp(%b)",
    );
    check(
        |patch| patch.replace(1, vec![node(Op::Mul, &["a", "w"], "b")]),
        "%a = Neg(%x); %b = Mul(%a, %w); %y = Exp(%b)",
    );
    check(
        |patch| {
            patch.remove(0);
            patch.replace_uses(&"a".into(), &"x".into());
        },
        "%b = Add(%x, %w); %y = Exp(%b)",
    );
}

#[test]
fn redirections_are_followed_to_the_end() {
    check(
        |patch| {
            patch.remove(0);
            patch.remove(1);
            patch.replace_uses(&"b".into(), &"a".into());
            patch.replace_uses(&"a".into(), &"x".into());
        },
        "%y = Exp(%x)",
    );
    check(
        |patch| {
            patch.replace_uses(&"b".into(), &"a".into());
            patch.replace_uses(&"a".into(), &"b".into());
        },
        "the uses of `b` are redirected to itself",
    );
}

#[test]
fn an_output_keeps_its_name() {
    check(
        |patch| {
            patch.insert(Place::End, node(Op::Relu, &["y"], "r"));
            patch.replace_uses(&"y".into(), &"r".into());
        },
        "%a = Neg(%x); %b = Add(%a, %w); %y_2 = Exp(%b); %y = Relu(%y_2)",
    );
    check(
        |patch| {
            patch.remove(2);
            patch.replace_uses(&"y".into(), &"b".into());
        },
        "%a = Neg(%x); %y = Add(%a, %w)",
    );
    // an input's name must survive, too
    check(
        |patch| {
            patch.remove(2);
            patch.replace_uses(&"y".into(), &"x".into());
        },
        "%a = Neg(%x); %b = Add(%a, %w); %y = Identity(%x)",
    );
}

#[test]
fn two_outputs_of_one_value_need_an_identity() {
    let mut builder = GraphBuilder::new("two");
    builder.input("x", TensorType::new(DType::F32, [4usize]));
    for (op, input, output) in [(Op::Neg, "x", "a"), (Op::Exp, "a", "y"), (Op::Abs, "a", "z")] {
        builder.push(node(op, &[input], output));
    }
    builder.output(&"y".into());
    builder.output(&"z".into());
    let graph = builder.finish().expect("the graph is whole");
    let mut patch = Patch::new(&graph);
    patch.remove(1);
    patch.remove(2);
    patch.replace_uses(&"y".into(), &"a".into());
    patch.replace_uses(&"z".into(), &"a".into());
    let shown = show(&patch.apply(Some(&types(&graph))).expect("both keep their names"));
    assert!(shown.ends_with("  out  %y\n  out  %z\n  %y = Neg(%x)\n  %z = Identity(%y)\n"), "{shown}");
}

#[test]
fn what_is_removed_must_not_be_used() {
    check(|patch| patch.remove(0), "`a` is removed, but Add `b` reads it");
    check(|patch| patch.remove(2), "`y` is removed, but the list of outputs reads it");
    check(|patch| patch.remove_initializer(&"w".into()), "`w` is removed, but Add `b` reads it");
    check(|patch| patch.remove_input(&"x".into()), "`x` is removed, but Neg `a` reads it");
}

#[test]
fn what_is_not_there_is_refused() {
    check(|patch| patch.remove(7), "the graph has 3 nodes, there is none at 7");
    check(
        |patch| patch.insert(Place::After(3), node(Op::Neg, &["x"], "n")),
        "the graph has 3 nodes, there is none at 3",
    );
    check(|patch| patch.replace_uses(&"q".into(), &"x".into()), "the graph has no value `q`");
    check(|patch| patch.replace_uses(&"b".into(), &"q".into()), "the graph has no value `q`");
    check(|patch| patch.remove_initializer(&"x".into()), "the graph has no initializer `x`");
    check(|patch| patch.replace_initializer(&"a".into(), Tensor::scalar(1f32)), "the graph has no initializer `a`");
    check(|patch| patch.remove_output(&"x".into()), "the graph has no output `x`");
    check(
        |patch| {
            patch.remove(1);
            patch.replace(1, Vec::new());
        },
        "Add `b` is removed or replaced twice",
    );
    check(
        |patch| patch.insert(Place::End, node(Op::Neg, &["q"], "n")),
        "Neg `n` reads `q`, which no input, initializer or node produces",
    );
}

#[test]
fn what_takes_a_place_must_have_its_type() {
    check(
        |patch| patch.replace(1, vec![node(cast(DType::F16), &["a"], "b")]),
        "`b` is f32[4], what takes its place is f16[4]",
    );
    check(
        |patch| {
            let shape = patch.add_initializer("shape", Tensor::vector(vec![2i64, 2]));
            patch.insert(Place::End, node(Op::Reshape(Reshape::default()), &["a", &shape], "r"));
            patch.replace_uses(&"a".into(), &"r".into());
        },
        "`a` is f32[4], what takes its place is f32[2, 2]",
    );
    check(
        |patch| patch.replace_initializer(&"w".into(), Tensor::vector(vec![1f32])),
        "`w` is f32[4], what takes its place is f32[1]",
    );
    // a new node must fit its inputs, even where nothing reads it
    check(
        |patch| {
            let w = patch.add_initializer("w", Tensor::vector(vec![1f32; 3]));
            patch.insert(Place::End, node(Op::Add, &["a", &w], "n"));
        },
        "Add `n`: the second shape should be one that broadcasts with [4], got [3]",
    );
}

fn cast(to: DType) -> Op {
    let read =
        Op::read("", "Cast", vec![("to".to_string(), crate::graph::attribute::Attribute::Int(to.onnx().into()))]);
    assert!(matches!(read, Ok(Op::Cast(Cast { .. }))));
    read.expect("the type is all that it needs")
}

#[test]
fn a_type_that_is_meant_to_change_is_inferred_through_the_graph() {
    let graph = chain();
    let shrink = |names: &[&str]| {
        let mut patch = Patch::new(&graph);
        let picks = patch.add_initializer("picks", Tensor::vector(vec![0i64, 2]));
        patch.replace(0, vec![node(Op::Gather(crate::graph::op::Gather { axis: 0 }), &["x", &picks], "a")]);
        patch.replace_initializer(&"w".into(), Tensor::vector(vec![1f32, 3.0]));
        names.iter().for_each(|&name| patch.retype(&name.into()));
        patch.apply(Some(&types(&graph)))
    };
    let patched = shrink(&["a", "w"]).expect("both become smaller");
    assert_eq!(patched.outputs[0].tensor_type(), Some(&TensorType::new(DType::F32, [2usize])));
    let error = shrink(&["w"]).expect_err("`a` was not meant to change").to_string();
    assert_eq!(error, "`a` is f32[4], what takes its place is f32[2]");

    let mut patch = Patch::new(&graph);
    patch.replace_initializer(&"w".into(), Tensor::vector(vec![1f32, 3.0]));
    patch.retype(&"w".into());
    let error = patch.apply(Some(&types(&graph))).expect_err("`a` still has 4").to_string();
    assert_eq!(error, "Add `b`: the second shape should be one that broadcasts with [4], got [2]");
}

#[test]
fn inputs_outputs_and_constants_come_and_go() {
    let graph = chain();
    let mut patch = Patch::new(&graph);
    patch.rename_input(&"x".into(), &"pixels".into());
    patch.rename_output(&"y".into(), &"scores".into());
    patch.add_output(ValueInfo::untyped("b"));
    patch.add_input(ValueInfo::new("offset", TensorType::new(DType::F32, [4usize])));
    patch.replace(1, vec![node(Op::Add, &["a", "offset"], "b")]);
    patch.remove_unused_initializers();
    let expected = r#"graph "chain"
  in   %pixels: f32[4]
  in   %offset: f32[4]
  out  %scores: f32[4]
  out  %b
  %a = Neg(%pixels)
  %b = Add(%a, %offset)
  %scores = Exp(%b)
"#;
    assert_eq!(show(&patch.apply(Some(&types(&graph))).expect("everything fits")), expected);

    let refusal = |edit: fn(&mut Patch)| {
        let mut patch = Patch::new(&graph);
        edit(&mut patch);
        patch.apply(None).expect_err("refused").to_string()
    };
    assert_eq!(refusal(|patch| patch.rename_input(&"x".into(), &"b".into())), "the name `b` is taken");
    assert_eq!(refusal(|patch| patch.rename_output(&"y".into(), &"w".into())), "the name `w` is taken");
    assert_eq!(refusal(|patch| patch.rename_output(&"b".into(), &"c".into())), "the graph has no output `b`");
}

#[test]
fn fresh_names_are_new_and_the_same_every_time() {
    let graph = chain();
    let mut patch = Patch::new(&graph);
    patch.reserve(&[Name::from("q")]);
    let names = ["a", "a", "c", "q"].map(|base| patch.fresh(base).to_string());
    assert_eq!(names, ["a_2", "a_3", "c", "q_2"]);
}

/// `If(condition) { Neg a } else { Exp a }` after `a = Abs(x)`.
fn branching() -> Graph {
    let branch = |name: &str, op: Op| {
        let mut builder = GraphBuilder::new(name);
        builder.push(node(op, &["a"], name));
        builder.output(&name.into());
        builder.finish_body().expect("a body may capture")
    };
    let mut builder = GraphBuilder::new("branching");
    builder.input("x", TensorType::new(DType::F32, [4usize]));
    builder.input("condition", TensorType { dtype: DType::Bool, shape: Some(Vec::new()) });
    builder.push(node(Op::Abs, &["x"], "a"));
    let op = Op::If(If { then_branch: branch("then", Op::Neg), else_branch: branch("else", Op::Exp) });
    builder.push(node(op, &["condition"], "y"));
    builder.output(&"y".into());
    builder.finish().expect("the graph is whole")
}

#[test]
fn bodies_read_what_their_graph_redirects() {
    let graph = branching();
    let mut patch = Patch::new(&graph);
    patch.remove(0);
    patch.replace_uses(&"a".into(), &"x".into());
    let shown = show(&patch.apply(Some(&types(&graph))).expect("captures are redirected"));
    assert!(shown.contains("%then = Neg(%x)") && shown.contains("%else = Exp(%x)"), "{shown}");

    let mut patch = Patch::new(&graph);
    patch.remove(0);
    let error = patch.apply(Some(&types(&graph))).expect_err("the branches read it").to_string();
    assert_eq!(error, "`a` is removed, but If `y` reads it");
}

#[test]
fn bodies_are_patched_in_place() {
    let graph = branching();
    let types = types(&graph);
    let edit = |edit: &dyn Fn(&mut Patch)| {
        map_bodies(&graph, |node_idx, body_idx, body| {
            let mut patch = Patch::new(body);
            patch.reserve(&graph.all_names());
            edit(&mut patch);
            patch.apply(types.body(node_idx, body_idx))
        })
    };
    let patched = edit(&|patch| {
        let output = patch.graph.outputs[0].name.clone();
        let twice = patch.fresh("twice");
        patch.insert(Place::End, node(Op::Relu, &[&output], &twice));
        patch.replace_uses(&output, &twice);
    });
    let shown = show(&patched.expect("outputs keep their names"));
    assert!(shown.contains("%then_2 = Neg(%a)\n      %then = Relu(%then_2)"), "{shown}");

    let error = edit(&|patch| patch.insert(Place::End, node(Op::Relu, &["x"], "r"))).expect_err("a new capture");
    assert_eq!(error.to_string(), "the body would read `x` from outside, which it did not before");
    let error = edit(&|patch| patch.add_output(ValueInfo::untyped("a"))).expect_err("one more output");
    assert_eq!(error.to_string(), "If `y`: its body has 1 outputs, the patched one 2");
    let error = edit(&|patch| {
        let output = patch.graph.outputs[0].name.clone();
        patch.insert(Place::End, node(cast(DType::I64), &[&output], "r"));
        patch.replace_uses(&output, &"r".into());
    });
    assert!(error.expect_err("another type").to_string().contains("what takes its place is i64[4]"));
}

/// What one step of a random patch does to a graph of unary operators.
#[derive(Clone, Debug)]
enum Step {
    /// Something after a node, read by all that read the node.
    InsertAfter(usize),
    /// Removes a node; what read it reads its input.
    Bypass(usize),
    /// Another operator in the same place.
    Replace(usize),
    /// A constant added to a node's output.
    AddConstant(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..4usize, 0..8usize).prop_map(|(kind, node_idx)| match kind {
        0 => Step::InsertAfter(node_idx),
        1 => Step::Bypass(node_idx),
        2 => Step::Replace(node_idx),
        _ => Step::AddConstant(node_idx),
    });
    prop::collection::vec(step, 1..6)
}

/// A graph of 8 unary nodes, each reading the input or an earlier node as the numbers say; the last two are outputs.
fn unary_graph(reads: &[usize]) -> Graph {
    let mut builder = GraphBuilder::new("random");
    let mut values = vec![builder.input("x", TensorType::new(DType::F32, [2usize, 3]))];
    for &read in reads {
        let value = values[read % values.len()].clone();
        values.push(builder.node(Op::Neg, &[&value]));
    }
    values.iter().rev().take(2).for_each(|value| builder.output(value));
    builder.finish().expect("the graph is whole")
}

proptest! {
    #[test]
    fn valid_patches_make_graphs(reads in prop::collection::vec(0..8usize, 8), steps in steps()) {
        let mut graph = unary_graph(&reads);
        let outputs: Vec<Name> = graph.outputs.iter().map(|output| output.name.clone()).collect();
        for step in steps {
            let mut patch = Patch::new(&graph);
            let (Step::InsertAfter(idx) | Step::Bypass(idx) | Step::Replace(idx) | Step::AddConstant(idx)) = step;
            let idx = idx % graph.nodes.len();
            let old = graph.nodes[idx].clone();
            let (read, written) = (old.inputs[0].clone().expect("read"), old.outputs[0].clone().expect("written"));
            match step {
                Step::InsertAfter(_) => {
                    let new = patch.fresh("inserted");
                    patch.insert(Place::After(idx), node(Op::Exp, &[&written], &new));
                    patch.replace_uses(&written, &new);
                }
                Step::Bypass(_) => {
                    patch.remove(idx);
                    patch.replace_uses(&written, &read);
                }
                Step::Replace(_) => patch.replace(idx, vec![Node { op: Op::Abs, ..Node::new(Op::Abs, vec![Some(read)], old.outputs) }]),
                Step::AddConstant(_) => {
                    let constant = patch.add_initializer("constant", Tensor::scalar(1f32));
                    let new = patch.fresh("sum");
                    patch.insert(Place::End, node(Op::Add, &[&written, &constant], &new));
                    patch.replace_uses(&written, &new);
                }
            }
            let before = types(&graph);
            graph = patch.apply(Some(&before)).expect("the patch is valid");
            prop_assert!(graph.check().is_ok());
            let names: Vec<Name> = graph.outputs.iter().map(|output| output.name.clone()).collect();
            prop_assert_eq!(&names, &outputs);
            let after = types(&graph);
            prop_assert!(names.iter().all(|name| after.get(name) == before.get(name)));
        }
    }
}
