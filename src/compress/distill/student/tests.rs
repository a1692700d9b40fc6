//! Students of small networks: which units and blocks stay, what they compute, and what is refused.

use indexmap::IndexMap;

use super::*;
use crate::compress::importance::importance;
use crate::compress::testing::wave;
use crate::graph::op::{BatchNormalization, DequantizeLinear, Op};
use crate::graph::structure::groups::groups;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, GraphBuilder, Name, TensorType, eval};

fn options(text: &str) -> StudentOptions {
    toml::from_str(text).expect("options")
}

fn student(teacher: &Graph, text: &str) -> Derived {
    derive(teacher, &options(text), &Bindings::default(), 7).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn refused(teacher: &Graph, text: &str, expected: &str) {
    let error = derive(teacher, &options(text), &Bindings::default(), 7).map(|derived| derived.report);
    assert_eq!(error.expect_err(text).to_string(), expected, "{text}");
}

fn floats(shape: &[usize], numbers: &[f32]) -> Tensor {
    Tensor::new(shape, numbers.to_vec()).expect("as many as the shape has")
}

fn output(graph: &Graph) -> Vec<f32> {
    let sizes = graph.inputs[0].tensor_type().and_then(|tensor| tensor.shape.clone()).expect("a shape");
    let shape: Vec<usize> = sizes.iter().map(|dim| dim.known().unwrap_or(2)).collect();
    let inputs = IndexMap::from([(graph.inputs[0].name.clone(), wave(&shape, 0.3))]);
    let outputs = eval::run(graph, &inputs).expect("it runs");
    outputs.into_values().flat_map(|tensor| tensor.to_vec::<f32>().expect("floats")).collect()
}

/// The input `x [batch, n]`.
fn begin(n: usize) -> (GraphBuilder, Name) {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), n.into()]));
    (builder, x)
}

fn product(builder: &mut GraphBuilder, x: &Name, name: &str, weight: Tensor) -> Name {
    let weight = builder.initializer(name, weight);
    builder.node(Op::MatMul, &[x, &weight])
}

fn finish(mut builder: GraphBuilder, y: &Name) -> Graph {
    builder.output(y);
    builder.finish().expect("a graph")
}

/// Two products with a Relu between them.
fn mlp(first: Tensor, second: Tensor) -> Graph {
    let (mut builder, x) = begin(first.shape()[0]);
    let hidden = product(&mut builder, &x, "first", first);
    let hidden = builder.node(Op::Relu, &[&hidden]);
    let y = product(&mut builder, &hidden, "second", second);
    finish(builder, &y)
}

/// Residual blocks of these numbers between a first and a last product.
fn residual(blocks: &[usize]) -> Graph {
    let (mut builder, x) = begin(3);
    let mut stream = product(&mut builder, &x, "first", wave(&[3, 8], 0.1));
    for &block in blocks {
        let phase = block as f32;
        let hidden = product(&mut builder, &stream, &format!("{block}.up"), wave(&[8, 6], phase));
        let hidden = builder.node(Op::Relu, &[&hidden]);
        let branch = product(&mut builder, &hidden, &format!("{block}.down"), wave(&[6, 8], phase + 0.5));
        stream = builder.node(Op::Add, &[&stream, &branch]);
    }
    let y = product(&mut builder, &stream, "last", wave(&[8, 2], 0.7));
    finish(builder, &y)
}

fn kept(derived: &Derived) -> Vec<usize> {
    (0..).zip(&derived.report.blocks).filter(|(_, block)| block.kept).map(|(idx, _)| idx).collect()
}

/// The sizes of the groups.
fn sizes(derived: &Derived) -> Vec<usize> {
    derived.report.groups.iter().map(|group| group.n_after).collect()
}

#[test]
fn the_units_of_greatest_importance_stay() {
    let first = floats(&[3, 4], &[4.0, 2.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
    let teacher = mlp(first, floats(&[4, 2], &[1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0]));
    let types = infer(&teacher, &Bindings::default()).expect("types fit");
    let found = groups(&teacher, &types).groups;
    let importance =
        |criterion: Criterion| importance(&teacher, &types, &found, criterion.into(), 7)[0].clone().expect("numbers");
    // made with L1 norms 4, 6, 0, 1, of mean 2.75, and read alike
    assert_eq!(importance(Criterion::L1), [4.0, 6.0, 0.0, 1.0].map(|norm| norm / 2.75 + 1.0));
    let norms = [4.0, 12f64.sqrt(), 0.0, 1.0];
    let mean = norms.iter().sum::<f64>() / 4.0;
    assert_eq!(importance(Criterion::L2), norms.map(|norm| norm / mean + 1.0));
    let first_row = |text: &str| {
        let tensor = student(&teacher, text).graph.initializers["first"].clone();
        tensor.to_vec::<f32>().expect("floats")[..tensor.shape()[1]].to_vec()
    };
    assert_eq!(first_row("width = 0.25"), [4.0]);
    assert_eq!(first_row("width = 0.25\ncriterion = 'l1'"), [2.0]);
    assert_eq!(first_row("width = 0.5"), [4.0, 2.0]);
    assert_eq!(first_row("width = 0.75"), [4.0, 2.0, 1.0]);
    assert_eq!(first_row("width = 0.75\ncriterion = 'first'"), [4.0, 2.0, 0.0]);
}

#[test]
fn every_coupled_layer_counts_alike() {
    // the second layer prefers unit 1 more strongly than the first one unit 0, however small its numbers are
    let teacher = mlp(floats(&[1, 2], &[30.0, 20.0]), floats(&[2, 1], &[0.01, 0.03]));
    let smaller = student(&teacher, "width = 0.5").graph;
    assert_eq!(smaller.initializers["first"], floats(&[1, 1], &[20.0]));
    assert_eq!(smaller.initializers["second"], floats(&[1, 1], &[0.03]));
}

#[test]
fn dead_units_go_first_and_nothing_changes() {
    let mut first = wave(&[3, 8], 0.2).to_vec::<f32>().expect("floats");
    let mut second = wave(&[8, 2], 0.4).to_vec::<f32>().expect("floats");
    for unit in [1, 4, 6] {
        (0..3).for_each(|row| first[row * 8 + unit] = if unit == 4 { 100.0 } else { 0.0 });
        second[unit * 2..unit * 2 + 2].fill(0.0);
    }
    let teacher = mlp(floats(&[3, 8], &first), floats(&[8, 2], &second));
    let derived = student(&teacher, "width = 0.625");
    assert_eq!(sizes(&derived), [5]);
    // fewer terms are added in another order
    let distance = |graph: &Graph| {
        let pairs = output(graph).into_iter().zip(output(&teacher));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(distance(&derived.graph) < 1e-6);
    assert!(distance(&student(&teacher, "width = 0.25").graph) > 1e-3);
}

#[test]
fn integers_are_ranked_by_what_they_stand_for() {
    let (mut builder, x) = begin(2);
    let integers = builder.initializer("integers", Tensor::new(&[2, 3], vec![100i8, 10, 1, 100, 10, 1]).expect("six"));
    let scale = builder.initializer("scale", floats(&[3], &[0.001, 0.1, 0.5]));
    let weight = builder.node(Op::DequantizeLinear(DequantizeLinear::default()), &[&integers, &scale]);
    let hidden = builder.node(Op::MatMul, &[&x, &weight]);
    let y = product(&mut builder, &hidden, "second", floats(&[3, 1], &[1.0; 3]));
    let teacher = finish(builder, &y);
    let smaller = student(&teacher, "width = 0.3").graph;
    assert_eq!(smaller.initializers["scale"], floats(&[1], &[0.1]));
    refused(
        &teacher,
        "width = 0.3\ninherit = false",
        "`inherit`: `integers` can only be inherited as it is: it is stored as i8; give the network before its \
         quantization",
    );
}

#[test]
fn a_whole_student_is_its_teacher() {
    let teacher = residual(&[0, 1, 2]);
    for text in
        ["", "width = 1", "width = 1.0\ndepth = { keep = 1.0 }", "width = { heads = 1.0 }\ndepth = { layers = 3 }"]
    {
        let derived = student(&teacher, text);
        assert_eq!(derived.graph, teacher, "{text}");
        assert_eq!(derived.report.student, derived.report.teacher, "{text}");
    }
}

#[test]
fn blocks_are_dropped_as_if_they_had_never_been() {
    let teacher = residual(&[0, 1, 2, 3, 4]);
    for (text, expected) in [
        ("depth = { keep = 0.5 }", vec![0, 2, 4]),
        ("depth = { keep = 0.4 }", vec![0, 4]),
        ("depth = { layers = 1 }", vec![0]),
        ("depth = { layers = 4 }", vec![0, 1, 3, 4]),
        ("depth = { blocks = [1, 3] }", vec![1, 3]),
        ("depth = { blocks = [] }", vec![]),
    ] {
        let derived = student(&teacher, text);
        assert_eq!(kept(&derived), expected, "{text}");
        assert_eq!(output(&derived.graph), output(&residual(&expected)), "{text}");
        derived.graph.check().expect("a graph");
        assert!(derived.report.groups.is_empty());
    }
}

#[test]
fn depth_comes_before_width() {
    let teacher = residual(&[0, 1, 2]);
    let derived = student(&teacher, "width = 0.5\ndepth = { blocks = [0, 2] }");
    assert_eq!((kept(&derived), sizes(&derived)), (vec![0, 2], vec![4, 3, 3]));
    let alone = student(&residual(&[0, 2]), "width = 0.5");
    assert_eq!(output(&derived.graph), output(&alone.graph));
    let streams: Vec<bool> = derived.report.groups.iter().map(|group| group.is_stream).collect();
    assert_eq!(streams, [true, false, false]);
    let left: Vec<String> = derived.report.left.iter().map(Left::to_string).collect();
    assert_eq!(left, ["`last`: `matmul_8` is an output of the network"]);
}

#[test]
fn groups_are_chosen_by_name_stream_and_kind() {
    let teacher = residual(&[0, 1]);
    for (width, expected) in [
        ("0.5", [4, 3, 3]),
        ("{ features = 0.5 }", [4, 3, 3]),
        ("{ stream = 0.5 }", [4, 6, 6]),
        ("{ features = 0.5, stream = 1.0 }", [8, 3, 3]),
        ("{ default = 0.5, groups = { '1.up*' = 1.0 } }", [4, 3, 6]),
        ("{ groups = { '*.up' = 0.5, '1.up*' = 0.17 } }", [8, 3, 2]),
    ] {
        assert_eq!(sizes(&student(&teacher, &format!("width = {width}"))), expected, "{width}");
    }
}

#[test]
fn kept_units_are_rounded() {
    let teacher = residual(&[0, 1, 2]);
    for (text, expected) in [
        ("width = 0.3", [3, 2, 2]),
        ("width = 0.3\ndivisor = 4", [4, 4, 4]),
        ("width = 0.7\ndivisor = 4\ncriterion = 'l1'", [8, 6, 6]),
        ("width = 0.1\nleast = 3", [3, 3, 3]),
        ("width = 0.1\nleast = 3\ndivisor = 2", [4, 4, 4]),
    ] {
        // one block less, so that a student that keeps all its units is one, too
        assert_eq!(sizes(&student(&teacher, &format!("{text}\ndepth = {{ layers = 2 }}"))), expected, "{text}");
    }
}

#[test]
fn a_budget_gives_the_widest_student_that_meets_it() {
    let teacher = residual(&[0, 1, 2]);
    let share = |derived: &Derived| {
        let Report { student, teacher, .. } = &derived.report;
        student.parameters as f64 / teacher.parameters as f64
    };
    for (key, budget) in [("parameters", 0.5), ("parameters", 0.2), ("macs", 0.3)] {
        let derived = student(&teacher, &format!("width = {{ {key} = {budget} }}"));
        let factor = derived.report.factor.expect("found");
        assert!(share(&derived) <= budget, "{key} = {budget}: {}", share(&derived));
        let same = student(&teacher, &format!("width = {factor}"));
        assert_eq!(same.graph, derived.graph, "{key} = {budget}");
        let wider = student(&teacher, &format!("width = {}", factor + 0.01));
        assert!(share(&wider) > budget, "{key} = {budget}: {factor} is not the greatest");
    }
    let derived = student(&teacher, "width = { parameters = 0.5, stream = 1.0 }");
    assert_eq!(sizes(&derived), [8, 2, 2, 2], "40 + 48 · 2 parameters are within half of 328");
    let derived = student(&teacher, "width = { parameters = 0.3, macs = 0.2 }\ndepth = { layers = 2 }");
    assert!(share(&derived) <= 0.2 && kept(&derived) == [0, 2]);
}

#[test]
fn weights_are_inherited_scaled_or_fresh() {
    let (mut builder, x) = begin(2);
    let hidden = product(&mut builder, &x, "first", wave(&[2, 4], 0.1));
    let statistics =
        ["scale", "bias", "mean", "variance"].map(|name| builder.initializer(name, floats(&[4], &[3.0; 4])));
    let [scale, bias, mean, variance] = &statistics;
    let norm = Op::BatchNormalization(BatchNormalization::default());
    let hidden = builder.node(norm, &[&hidden, scale, bias, mean, variance]);
    let y = product(&mut builder, &hidden, "second", wave(&[4, 2], 0.2));
    let teacher = finish(builder, &y);
    let numbers = |graph: &Graph, name: &str| graph.initializers[name].to_vec::<f32>().expect("floats");
    let inherited = student(&teacher, "width = 0.5").graph;
    let scaled = student(&teacher, "width = 0.5\ninherit = { scale = 0.5 }").graph;
    let fresh = student(&teacher, "width = 0.5\ninherit = false").graph;
    for name in ["first", "second"] {
        let halves: Vec<f32> = numbers(&inherited, name).iter().map(|number| number * 0.5).collect();
        assert_eq!(numbers(&scaled, name), halves);
        assert_ne!(numbers(&fresh, name), numbers(&inherited, name));
    }
    for (name, number) in [("scale", 1.0), ("bias", 0.0), ("mean", 0.0), ("variance", 1.0)] {
        assert_eq!(numbers(&inherited, name), [3.0; 2]);
        assert_eq!(numbers(&scaled, name), [3.0; 2]);
        assert_eq!(numbers(&fresh, name), [number; 2], "{name}");
    }
}

#[test]
fn the_same_seed_gives_the_same_student() {
    let teacher = residual(&[0, 1]);
    let derive =
        |text: &str, seed| derive(&teacher, &options(text), &Bindings::default(), seed).expect("a student").graph;
    for text in ["width = 0.5\ncriterion = 'random'", "width = 0.5\ninherit = false"] {
        assert_eq!(derive(text, 1), derive(text, 1), "{text}");
        assert_ne!(derive(text, 1), derive(text, 2), "{text}");
    }
    assert_eq!(derive("width = 0.5", 1), derive("width = 0.5", 2));
}

#[test]
fn what_cannot_be_derived_is_refused_by_name() {
    let net = residual(&[0, 1, 2]);
    let stays = "last[1]: `matmul_8` is an output of the network";
    for (text, expected) in [
        ("width = 0", "`width` is 0; give a number above 0, at most 1".to_string()),
        ("width = 1.5", "`width` is 1.5; give a number above 0, at most 1".to_string()),
        ("width = nan", "`width` is NaN; give a number above 0, at most 1".to_string()),
        ("width = { heads = -1 }", "`width.heads` is -1; give a number above 0, at most 1".to_string()),
        ("divisor = 0", "`divisor` is 0; give a number of at least 1".to_string()),
        ("depth = { layers = 0 }", "`depth.layers` is 0; give a number of at least 1".to_string()),
        ("depth = { keep = 2 }", "`depth.keep` is 2; give a number above 0, at most 1".to_string()),
        ("inherit = { scale = inf }", "`inherit.scale` is inf; give a finite number above 0".to_string()),
        (
            "width = { default = 0.5, parameters = 0.5 }",
            "`width.default` and a budget both decide over the other groups; leave one of them out".to_string(),
        ),
        (
            "width = { heads = 0.5 }",
            format!("`width.heads`: the network has no such units that can go (2 of {stays}); leave it out, or give 1"),
        ),
        (
            "width = { groups = { 'last' = 0.5 } }",
            format!(
                "`width.groups.\"last\"`: the network has no such units that can go (2 of {stays}); leave it out, or \
                 give 1"
            ),
        ),
        (
            "width = { groups = { 'conv*' = 0.5 } }",
            "`width.groups.\"conv*\"`: the network has no such units that can go; leave it out, or give 1".to_string(),
        ),
        ("depth = { blocks = [0, 3] }", "`depth.blocks`: the network has 3 blocks, there is no block 3".to_string()),
        ("depth = { layers = 4 }", "`depth.layers` is 4; the longest stack of alike blocks has 3".to_string()),
        (
            "width = { parameters = 0.01 }",
            "`width.parameters` is 0.01; with what else is asked for the least share is 0.0335: allow more, or take \
             out blocks"
                .to_string(),
        ),
        (
            "width = 0.99",
            "nothing of the network gets smaller (`last`: `matmul_8` is an output of the network; `first` keeps all 8 \
             features; `0.up` keeps all 6 features; `1.up` keeps all 6 features; and 1 more)"
                .to_string(),
        ),
    ] {
        refused(&net, text, &expected);
    }
    let (mut builder, x) = begin(3);
    let y = product(&mut builder, &x, "only", wave(&[3, 2], 0.0));
    let net = finish(builder, &y);
    refused(
        &net,
        "depth = { keep = 0.5 }",
        "`depth.keep`: the network has no repeated blocks that can go; leave it out",
    );
    refused(&net, "width = 0.5", "nothing of the network gets smaller (`only`: `matmul` is an output of the network)");
    refused(
        &net,
        "width = { parameters = 0.5 }",
        "`width`: the network has no such units that can go; leave it out, or give 1",
    );
}

#[test]
fn weights_that_are_no_numbers_are_not_ranked() {
    let teacher = mlp(floats(&[1, 2], &[f32::NAN, 1.0]), floats(&[2, 1], &[1.0, 1.0]));
    let cause = "cannot be ranked: `first` holds what is no finite number; use the criterion `first` or `random`";
    let output = "`second`: nothing would be left of `second`";
    refused(&teacher, "width = 0.5", &format!("nothing of the network gets smaller ({output}; `first`: it {cause})"));
    refused(&teacher, "width = { features = 0.5 }", &format!("`first` {cause}"));
    assert_eq!(sizes(&student(&teacher, "width = 0.5\ncriterion = 'first'")), [1]);
}

#[test]
fn options_are_read_strictly_and_written_back() {
    let read = |text: &str| toml::from_str::<StudentOptions>(text).map_err(|error| error.message().to_string());
    let whole = "from = 'teacher'\nwidth = { channels = 0.5, groups = { 'a.*' = 1 } }\ndepth = { blocks = [0, 2] }\n\
                 criterion = 'random'\ninherit = { scale = 0.5 }\ndivisor = 4\nleast = 8";
    for text in ["", "width = 0.25\ninherit = false", whole] {
        let options = read(text).expect("options");
        let written = toml::to_string(&options).expect("TOML");
        assert_eq!(read(&written), Ok(options), "{written}");
    }
    for (text, expected) in [
        ("widht = 0.5", "unknown field `widht`"),
        ("width = { chanels = 0.5 }", "unknown field `chanels`"),
        ("width = true", "invalid type: boolean `true`, expected a number, or a table"),
        ("depth = { last = 3 }", "unknown variant `last`, expected one of `keep`, `blocks`, `layers`"),
        ("criterion = 'l3'", "unknown variant `l3`"),
        ("inherit = 0.5", "invalid type: floating point `0.5`, expected true, false or a table"),
        ("inherit = { shrink = 0.5 }", "unknown field `shrink`, expected `scale`"),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}
