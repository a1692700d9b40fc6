//! Small files that ask for much: nesting, repetition, shapes and loops without end. Each gives an error or a model within
//! a second, in memory that its size accounts for.

use std::time::Duration;

use aludel::graph::eval;
use aludel::onnx;
use bytes::Bytes;
use indexmap::IndexMap;

use super::allocation::most_held;
use super::exercise::{read, understand};
use super::time;
use super::wire::{
    field, floats, graph_attribute, int, int_attribute, ints_attribute, list, model, nested, node, number, output,
    text_attribute, truth, value,
};

/// What a bomb may take beside the bytes that it is read from: so many times its size, and so much whatever its size.
const MOST_TIMES: usize = 256;
const MOST_BESIDE: usize = 64 << 20;

/// Everything that [`read`] does, seven readings and writings among it, and again everything that [`understand`] does.
const MOST_TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

/// The file does no harm; `expected` begins what is said of it, `read` where it is a model.
fn check(what: &str, file: Vec<u8>, expected: &str) {
    let file = Bytes::from(file);
    for (doing, work) in [("reading", read as fn(_) -> _), ("understanding", understand)] {
        let ((result, n_bytes), taken) = time::taken(|| most_held(|| work(file.clone())));
        let said = result.map_or_else(|error| error.to_string(), |()| "read".to_string());
        assert!(said.starts_with(expected), "{what}: {}", said.chars().take(300).collect::<String>());
        let most = MOST_TIMES * file.len() + MOST_BESIDE;
        assert!(n_bytes <= most, "{what}: {doing} took {n_bytes} bytes for a file of {}", file.len());
        assert!(taken < MOST_TIME, "{what}: {doing} took {taken:?}");
    }
}

fn names(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|idx| format!("{prefix}{idx}")).collect()
}

#[test]
fn nesting_without_end_is_refused() {
    let recursion = "the bytes are no ONNX message: failed to decode Protobuf message";
    let y = node("Neg", &["x"], &["y"], &[]);
    // graph, its node, the node's attribute, the attribute's graph
    let bodies = nested(&[1, 5, 6], 10_000, &y);
    check("bodies", model(21, &[bodies]), recursion);
    // input, its type, a sequence, its elements
    let types = nested(&[4, 1], 10_000, &[]);
    check("types", model(21, &[field(11, [field(1, "x"), field(2, types)].concat())]), recursion);
    let unknown = nested(&[99], 10_000, &[]);
    check("a field that nobody knows", [unknown, model(21, &[])].concat(), "read");
}

#[test]
fn long_chains_are_read() {
    let names = names("v", 20_001);
    let nodes: Vec<Vec<u8>> = names.windows(2).map(|pair| node("Neg", &[&pair[0]], &[&pair[1]], &[])).collect();
    let ends = [value(11, "v0", 1, &[-1, 4]), output("v20000")].concat();
    check("a chain", model(21, &[nodes.concat(), ends.clone()]), "read");
    let backwards: Vec<u8> = nodes.iter().rev().flatten().copied().collect();
    check("a chain back to front", model(21, &[backwards, ends]), "read");
    let closed = node("Neg", &["v20000"], &["v0"], &[]);
    check("a ring", model(21, &[nodes.concat(), closed]), "Neg `v1` depends on its own output: the graph has a cycle");
}

/// Every sum could begin at the input: as many regions, each as large as all before it.
#[test]
fn sums_that_all_go_back_to_the_input_are_read() {
    let names = names("v", 5_001);
    let sums = names.windows(2).map(|pair| {
        let side = format!("{}_side", pair[1]);
        let nodes = [node("Add", &[&pair[0], "v0"], &[&pair[1]], &[]), node("Neg", &[&pair[1]], &[&side], &[])];
        [nodes.concat(), output(&side)].concat()
    });
    let sums: Vec<Vec<u8>> = sums.collect();
    check("sums", model(21, &[sums.concat(), value(11, "v0", 1, &[1, 4])]), "read");
}

#[test]
fn lists_without_end_are_read_or_refused() {
    const N: usize = 50_000;
    let many = |message: Vec<u8>| message.repeat(N);
    let unnamed = "an input, output or initializer has no name";
    check("initializers of nothing", model(21, &[many(field(5, []))]), unnamed);
    check("inputs of nothing", model(21, &[many(field(11, []))]), unnamed);
    check("nodes of nothing", model(21, &[many(field(1, []))]), "read");
    check("nodes without outputs", model(11, &[number("x", 1), many(node("Squeeze", &["x"], &[], &[]))]), "Squeeze");
    check("attributes of nothing", model(21, &[field(1, many(field(5, [])))]), ": attribute ``: has no type");
    check("sparse tensors of nothing", model(21, &[many(field(15, []))]), "tensor ``: element type 0 is unknown");
    check("functions of nothing", [model(21, &[]), many(field(25, []))].concat(), "two functions are called `.`");
    check("operator sets", [model(21, &[]), many(field(8, int(2, 21)))].concat(), "read");
    check("pairs of nothing", [model(21, &[]), many(field(14, []))].concat(), "read");
    let names = names("y", N);
    let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
    let x = value(11, "x", 1, &[4]);
    check("outputs", model(21, &[x.clone(), node("Split", &["x"], &outputs, &[])]), "read");
    let summed = [x.clone(), node("Sum", &vec!["x"; N], &["y"], &[]), output("y")];
    check("inputs", model(21, &summed), "read");
    let long = ints_attribute("axes", &vec![0; N]);
    check("an attribute", model(11, &[x, node("Squeeze", &["x"], &["y"], &[long])]), "read");
    check("dimensions", model(21, &[value(11, "x", 1, &[1; N])]), "value `x`: it has 50000 dimensions");
    let dims = field(5, [int(1, 1).repeat(N), int(2, 1), field(8, "w")].concat());
    check("a tensor's dimensions", model(21, &[dims]), "tensor `w`: it has 50000 dimensions, and at most 64 are read");
}

#[test]
fn functions_that_multiply_are_refused() {
    let call = |name: &str, output: &str| {
        let names = [field(1, "a"), field(2, output), field(4, name), field(7, "local")].concat();
        field(7, names)
    };
    let mut file = model(21, &[field(1, [field(1, "x"), field(2, "y"), field(4, "F12"), field(7, "local")].concat())]);
    for level in 0..=12 {
        let inner = format!("F{}", level - 1);
        let nodes: Vec<Vec<u8>> = match level {
            0 => vec![field(7, [field(1, "a"), field(2, "b"), field(4, "Neg")].concat())],
            _ => (0..10).map(|idx| call(&inner, if idx == 0 { "b" } else { "" })).collect(),
        };
        let ends = [field(4, "a"), field(5, "b"), field(10, "local"), field(9, int(2, 21))].concat();
        file.extend(field(25, [field(1, format!("F{level}")), nodes.concat(), ends].concat()));
    }
    check("laughs", file, "F12 `y`: in function `local.F12`: F11 `b`: in function");
}

/// An operator, what it reads, its attributes.
type Bomb<'a> = (&'a str, &'a [&'a str], &'a [Vec<u8>]);

/// Operators whose outputs are as large as a few numbers say, on the numbers that overflow.
#[test]
fn shapes_without_end_are_not_allocated() {
    const MANY: i64 = 1 << 40;
    let extremes = [i64::MAX, i64::MIN, i64::MAX - 1, MANY, 1 << 31, -1];
    for n in extremes {
        let numbers = [
            list("sizes", &[n, n, n]),
            number("n", n),
            number("zero", 0),
            number("one", 1),
            list("axes", &[n]),
            list("start", &[1]),
            floats("x", &[1, 2, 3], &[0.5; 6]),
            floats("image", &[1, 1, 2, 2], &[0.5; 4]),
            floats("kernel", &[1, 1, 2, 2], &[0.5; 4]),
            floats("scales", &[3], &[n as f32; 3]),
            list("pads", &[n, n, n, n, n, n]),
            list("ids", &[n, 0]),
            list("onoff", &[0, 1]),
        ];
        let window = [ints_attribute("strides", &[n, n]), ints_attribute("dilations", &[n, n])];
        let pads = ints_attribute("pads", &[n, n, n, n]);
        let kernel = ints_attribute("kernel_shape", &[n, n]);
        let small = ints_attribute("kernel_shape", &[2, 2]);
        let int = int_attribute;
        let bombs: &[Bomb<'_>] = &[
            ("ConstantOfShape", &["sizes"], &[]),
            ("Expand", &["x", "sizes"], &[]),
            ("Tile", &["x", "sizes"], &[]),
            ("Reshape", &["x", "sizes"], &[]),
            ("Reshape", &["sizes", "sizes"], &[int("allowzero", 1)]),
            ("Range", &["zero", "n", "one"], &[]),
            ("Range", &["n", "zero", "n"], &[]),
            ("Pad", &["x", "pads"], &[]),
            ("Resize", &["x", "", "", "sizes"], &[]),
            ("Resize", &["x", "", "scales"], &[]),
            ("OneHot", &["ids", "n", "onoff"], &[]),
            ("OneHot", &["ids", "start", "onoff"], &[int("axis", n)]),
            ("TopK", &["x", "axes"], &[int("axis", n)]),
            ("TopK", &["x", "axes"], &[]),
            ("Slice", &["x", "axes", "axes", "axes", "axes"], &[]),
            ("Slice", &["x", "axes", "start", "start", "axes"], &[]),
            ("Slice", &["sizes", "start", "axes"], &[]),
            ("Split", &["x", "axes"], &[]),
            ("Split", &["x"], &[int("num_outputs", n), int("axis", n)]),
            ("Gather", &["x", "ids"], &[int("axis", n)]),
            ("Gather", &["ids", "ids"], &[]),
            ("GatherND", &["ids", "axes"], &[int("batch_dims", n)]),
            ("GatherElements", &["ids", "ids"], &[]),
            ("ScatterElements", &["ids", "ids", "ids"], &[int("axis", n)]),
            ("ScatterND", &["ids", "axes", "start"], &[]),
            ("Unsqueeze", &["x", "sizes"], &[]),
            ("Unsqueeze", &["x", "axes"], &[]),
            ("Squeeze", &["x", "axes"], &[]),
            ("ReduceSum", &["x", "axes"], &[]),
            ("Concat", &["sizes", "ids"], &[int("axis", n)]),
            ("Flatten", &["x"], &[int("axis", n)]),
            ("Transpose", &["x"], &[ints_attribute("perm", &[n, n, n])]),
            ("Shape", &["x"], &[int("start", n), int("end", n)]),
            ("Softmax", &["x"], &[int("axis", n)]),
            ("LayerNormalization", &["x", "x"], &[int("axis", n), int("stash_type", n)]),
            ("RMSNormalization", &["x", "x"], &[int("axis", n)]),
            ("GroupNormalization", &["image", "start", "start"], &[int("num_groups", n)]),
            ("LRN", &["image"], &[int("size", n)]),
            ("LpNormalization", &["x"], &[int("axis", n), int("p", n)]),
            ("CumSum", &["ids", "n"], &[]),
            ("Trilu", &["x", "n"], &[]),
            ("DepthToSpace", &["image"], &[int("blocksize", n)]),
            ("SpaceToDepth", &["image"], &[int("blocksize", n)]),
            ("Conv", &["image", "kernel"], &[window[0].clone(), window[1].clone(), pads.clone()]),
            ("Conv", &["image", "kernel"], &[int("group", n), kernel.clone()]),
            ("Conv", &["image", "kernel"], std::slice::from_ref(&pads)),
            ("Conv", &["image", "kernel"], &[window[1].clone(), text_attribute("auto_pad", "SAME_UPPER")]),
            ("ConvTranspose", &["image", "kernel"], &[window[0].clone()]),
            ("ConvTranspose", &["image", "kernel"], &[ints_attribute("output_shape", &[n, n])]),
            ("ConvTranspose", &["image", "kernel"], &[ints_attribute("output_padding", &[n, n]), int("group", n)]),
            ("MaxPool", &["image"], &[kernel.clone(), window[0].clone()]),
            ("MaxPool", &["image"], &[small.clone(), pads.clone(), int("ceil_mode", 1)]),
            ("MaxPool", &["image"], &[small.clone(), window[1].clone(), int("storage_order", n)]),
            ("AveragePool", &["image"], &[kernel.clone(), pads.clone()]),
            ("AveragePool", &["image"], &[small, window[0].clone(), int("ceil_mode", 1)]),
            ("Einsum", &["x", "x"], &[text_attribute("equation", "...ij,...jk->")]),
            ("Einsum", &["x"], &[text_attribute("equation", "......->->")]),
            ("QuantizeLinear", &["x", "scales"], &[int("axis", n), int("block_size", n)]),
            ("DequantizeLinear", &["ids", "scales"], &[int("axis", n), int("block_size", n)]),
            ("LSTM", &["x", "x", "x"], &[int("hidden_size", n)]),
            ("GRU", &["x", "x", "x"], &[int("hidden_size", n), int("layout", 1)]),
            ("Attention", &["image", "image", "image"], &[int("q_num_heads", n), int("kv_num_heads", n)]),
            ("Mod", &["ids", "axes"], &[]),
            ("Div", &["ids", "axes"], &[]),
            ("Mul", &["sizes", "sizes"], &[]),
            ("BitShift", &["ids", "ids"], &[]),
            ("Cast", &["x"], &[int("to", n)]),
        ];
        for &(op_type, inputs, attributes) in bombs {
            for opset in [24, 12] {
                let graph = [numbers.concat(), node(op_type, inputs, &["y"], attributes), output("y")];
                let file = model(opset, &graph);
                check(&format!("{op_type} of {n} at {opset}"), file.clone(), "");
                computed(&format!("{op_type} of {n} at {opset}"), file);
            }
        }
    }
}

/// The reference gives a value or an error, without the memory or the time that the shape asks for.
fn computed(what: &str, file: Vec<u8>) {
    let Ok(model) = onnx::read_bytes(file.into(), None) else { return };
    let ((result, n_bytes), taken) = time::taken(|| most_held(|| eval::run(&model.graph, &IndexMap::new())));
    assert!(n_bytes < MOST_BESIDE, "{what}: computing takes {n_bytes} bytes and gives {result:?}");
    assert!(taken < MOST_TIME, "{what}: computing takes {taken:?}");
}

#[test]
fn values_and_dimensions_do_not_multiply() {
    // the shape of 64 symbols, joined to a thousand, carried through five thousand nodes
    let symbols: Vec<i64> = (1..=64).map(|idx| -idx).collect();
    let names = names("v", 5_001);
    let chain: Vec<Vec<u8>> =
        names.windows(2).map(|pair| node("Add", &[&pair[0], "zeros"], &[&pair[1]], &[])).collect();
    let start = [
        value(11, "x", 1, &symbols),
        list("zeros", &[0; 1024]),
        node("Shape", &["x"], &["shape"], &[]),
        node("Concat", &["shape"; 16], &["v0"], &[int_attribute("axis", 0)]),
    ];
    for opset in [21, 11] {
        let graph = [start.concat(), chain.concat(), node("Neg", &["x"], &["same"], &[]), output("v5000")];
        check(&format!("values at {opset}"), model(opset, &graph), "read");
    }
    let wide: Vec<Vec<u8>> = names.windows(2).map(|pair| node("Neg", &[&pair[0]], &[&pair[1]], &[])).collect();
    check("dimensions", model(21, &[value(11, "v0", 1, &symbols), wide.concat(), output("v5000")]), "read");
}

fn looped(depth: usize, innermost: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let ends = |depth: usize| {
        let name = |what: &str| format!("{what}{depth}");
        [
            value(11, &name("round"), 7, &[]),
            value(11, &name("on"), 9, &[]),
            field(11, field(1, name("in"))),
            output(&name("on")),
            output(&name("out")),
        ]
        .concat()
    };
    (1..=depth).fold(innermost.to_vec(), |inner, depth| {
        let body = [inner.concat(), ends(depth), node("Neg", &[&format!("in{depth}")], &[&format!("out{depth}")], &[])];
        let output = format!("loop{depth}");
        vec![node("Loop", &["n", "true", "x"], &[&output], &[graph_attribute("body", &body.concat())])]
    })
}

#[test]
fn loops_in_loops_come_to_an_end() {
    let around = [number("n", 1 << 62), truth("true"), floats("x", &[1], &[0.5])];
    let captures = [node("Sum", &vec!["x"; 50_000], &["sum"], &[])];
    for (what, depth, innermost) in [("one", 1, &[][..]), ("thirty", 30, &[][..]), ("wide", 30, &captures[..])] {
        let nodes = looped(depth, innermost);
        check(&format!("{what}, a loop"), model(21, &[around.concat(), nodes.concat()]), "read");
        check(&format!("{what}, a loop at 12"), model(12, &[around.concat(), nodes.concat()]), "read");
    }
}

#[test]
fn branches_in_branches_come_to_an_end() {
    let mut inner = [node("Neg", &["x"], &["y0"], &[]), output("y0")].concat();
    for depth in 1..=10 {
        let branches = [graph_attribute("then_branch", &inner), graph_attribute("else_branch", &inner)];
        let y = format!("y{depth}");
        inner = [node("If", &["c"], &[&y], &branches), output(&y)].concat();
    }
    let inputs = [value(11, "c", 9, &[]), value(11, "x", 1, &[2])];
    check("branches", model(21, &[inputs.concat(), inner]), "read");
}

#[test]
fn operators_without_end_are_lowered() {
    let names = names("v", 3_001);
    for op_type in ["LayerNormalization", "Gelu", "HardSwish"] {
        let nodes = names.windows(2).map(|pair| match op_type {
            "LayerNormalization" => node(op_type, &[&pair[0], "w"], &[&pair[1]], &[]),
            _ => node(op_type, &[&pair[0]], &[&pair[1]], &[]),
        });
        let nodes: Vec<u8> = nodes.flatten().collect();
        let ends = [floats("w", &[4], &[0.5; 4]), value(11, "v0", 1, &[-1, 4]), output("v3000")].concat();
        check(op_type, model(21, &[nodes, ends]), "read");
    }
}
