//! Every rule and every refusal on the way to older operator sets.

use super::super::raw::Context;
use super::super::raw_text::{graph, parse, show_raw};
use super::super::upgrade::upgrade;
use super::{LowerError, Target, least_opset, lower};
use crate::graph::op::If;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, GraphBuilder, GraphParts, Name, Node, Op, TensorType, ValueInfo};

fn target(opset: u32) -> Target {
    Target { opset, own_opset: 28, microsoft: false }
}

/// What is written of a canonical graph: its constants, then its nodes.
fn check(opset: u32, canonical: &str, written: &[&str]) {
    let raw = lower(&graph(canonical), target(opset)).expect("this opset has it");
    assert_eq!(show_raw(&raw), written, "opset {opset}: {canonical}");
}

/// The operators in place of those that the opset lacks.
fn check_operators(opset: u32, canonical: &str, operators: &str) {
    let raw = lower(&graph(canonical), target(opset)).expect("this opset has a way");
    let written: Vec<&str> = raw.nodes.iter().map(|node| node.op_type.as_str()).collect();
    assert_eq!(written.join(" "), operators, "opset {opset}: {canonical}");
}

/// The first opset that has the form, and why others lack it.
fn refused(opset: u32, canonical: &str, least: u32, because: &str) {
    match lower(&graph(canonical), target(opset)) {
        Err(LowerError::Needs { least: got, reason, .. }) => {
            assert_eq!((got, reason.contains(because)), (least, true), "opset {opset}: {canonical}: {reason}");
        }
        other => panic!("opset {opset}: {canonical}: {other:?}"),
    }
    lower(&graph(canonical), target(least)).expect("the opset that the refusal names has it");
}

fn least(canonical: &str, opset: u32) {
    assert_eq!(least_opset(&graph(canonical), false).0, opset, "{canonical}");
}

/// A file of this opset, brought to canonical form and back.
fn kept(opset: u32, file: &str) {
    let text = parse(file);
    let names = text.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs).flatten().cloned());
    let mut context = Context::new(names);
    context.enter();
    text.types.iter().for_each(|info| context.declare(info));
    text.constants.iter().for_each(|(name, tensor)| context.declare_constant(name, tensor));
    let before: Vec<Node> =
        text.nodes.iter().flat_map(|node| upgrade(node.clone(), opset, &mut context).expect("well-formed")).collect();
    let read = |name: &Name| before.iter().any(|node| node.reads().any(|input| input == name));
    let outputs = before.iter().flat_map(|node| node.outputs.iter().flatten()).filter(|name| !read(name));
    let outputs = outputs.map(ValueInfo::untyped).collect();
    let mut initializers: indexmap::IndexMap<Name, Tensor> = text.constants.into_iter().collect();
    initializers.extend(context.leave());
    let parts = GraphParts { inputs: text.types, outputs, initializers, nodes: before, ..GraphParts::default() };
    let network = Graph::new(parts).expect("a graph");
    let own = Target { opset, own_opset: opset, microsoft: false };
    let raw = lower(&network, own).expect("its own opset has it");
    let statements = file.split(';').map(str::trim).filter(|statement| !statement.contains(": "));
    let expected: Vec<&str> = statements.collect();
    assert_eq!(show_raw(&raw), expected, "opset {opset}");
    let (least, why) = least_opset(&network, false);
    assert!(least <= opset, "opset {opset}: {file} is raised to {least} by {why:?}");
}

#[test]
fn constant_inputs_become_attributes() {
    let squeeze = "x: f32[1, 2]; axes = i64 [0]; Squeeze x, axes -> y";
    check(13, squeeze, &["axes = i64 [0]", "Squeeze x, axes -> y"]);
    check(12, squeeze, &["Squeeze(axes=[0]) x -> y"]);
    check(12, "x: f32[2]; axes = i64 [0]; Unsqueeze x, axes -> y", &["Unsqueeze(axes=[0]) x -> y"]);
    check(12, "x: f32[2]; axes = i64 []; Unsqueeze x, axes -> y", &["Unsqueeze(axes=[]) x -> y"]);
    for op in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"] {
        let old = format!("x: f32[2, 3]; axes = i64 [1]; Reduce{op}(keepdims=0) x, axes -> y");
        check(17, &old, &[&format!("Reduce{op}(axes=[1], keepdims=0) x -> y")]);
    }
    check(17, "x: f32[2, 3]; axes = i64 [1]; ReduceSum x, axes -> y", &["axes = i64 [1]", "ReduceSum x, axes -> y"]);
    check(12, "x: f32[2, 3]; axes = i64 [1]; ReduceSum x, axes -> y", &["ReduceSum(axes=[1]) x -> y"]);
    check(12, "x: f32[2]; axes = i64 []; ReduceSum x, axes -> y", &["ReduceSum x -> y"]);
    check(
        9,
        "x: f32[4]; s = i32 [1]; e = i32 [3]; a = i32 [0]; t = i32 [1]; Slice x, s, e, a, t -> y",
        &["Slice(axes=[0], ends=[3], starts=[1]) x -> y"],
    );
    check(12, "x: f32[3]; s = i64 [1, 2]; Split x, s -> a, b", &["Split(split=[1, 2]) x -> a, b"]);
    check(9, "x: f32[8]; k = i64 [3]; TopK x, k -> v, i", &["TopK(k=3) x -> v, i"]);
    check(10, "x: f32[8]; k = i64 [3]; TopK(sorted=0) x, k -> v, i", &["k = i64 [3]", "TopK x, k -> v, i"]);
    check(10, "x: f32[2]; lo = f32 0; hi = f32 [6]; Clip x, lo, hi -> y", &["Clip(max=6.0, min=0.0) x -> y"]);
    check(10, "x: f64[2]; hi = f64 0.5; Clip x, _, hi -> y", &["Clip(max=0.5) x -> y"]);
    check(10, "x: f32[2]; p = i64 [0, 1]; v = f32 2; Pad x, p, v -> y", &["Pad(pads=[0, 1], value=2.0) x -> y"]);
    check(11, "x: f32[2]; r = f32 0.25; t = bool 0; Dropout(seed=3) x, r, t -> y", &["Dropout(ratio=0.25) x -> y"]);
}

#[test]
fn inputs_that_are_no_constants_are_refused() {
    let computed = "is computed or given by the caller";
    refused(12, "x: f32[1]; axes: i64[1]; Squeeze x, axes -> y", 13, computed);
    refused(12, "x: f32[1]; axes: i64[1]; Unsqueeze x, axes -> y", 13, computed);
    refused(17, "x: f32[1]; axes: i64[1]; ReduceMax x, axes -> y", 18, computed);
    refused(9, "x: f32[4]; s: i64[1]; e: i64[1]; Slice x, s, e -> y", 10, computed);
    refused(9, "x: f32[4]; s = i64 [3]; e = i64 [0]; t = i64 [-1]; Slice x, s, e, _, t -> y", 10, "steps");
    refused(12, "x: f32[4]; s: i64[2]; Split x, s -> a, b", 13, computed);
    refused(9, "x: f32[4]; k: i64[1]; TopK x, k -> v, i", 10, computed);
    refused(10, "x: f32[4]; lo: f32[]; Clip x, lo -> y", 11, computed);
    refused(10, "x: f64[4]; lo = f64 0.1; Clip x, lo -> y", 11, "no single number of 32 bits");
    refused(10, "x: f32[4]; p: i64[2]; Pad x, p -> y", 11, computed);
    refused(11, "x: f32[4]; t: bool[]; Dropout x, _, t -> y", 12, "training");
    refused(11, "x: f32[4]; Dropout x -> y, mask", 12, "mask");
    refused(9, "x: f32[4]; Dropout x -> y, mask", 12, "mask");
}

#[test]
fn a_constant_that_a_caller_may_override_is_none() {
    let mut parts = graph("x: f32[1, 2]; axes = i64 [0]; Squeeze x, axes -> y").to_parts();
    parts.overridable.insert("axes".into());
    let network = Graph::new(parts).expect("a graph");
    assert!(matches!(lower(&network, target(12)), Err(LowerError::Needs { least: 13, .. })));
}

#[test]
fn a_constant_stays_where_something_else_reads_it() {
    check(
        12,
        "x: f32[1, 2]; a = i64 [0]; Squeeze x, a -> y; Neg a -> z",
        &["a = i64 [0]", "Squeeze(axes=[0]) x -> y", "Neg a -> z"],
    );
    check(12, "x: f32[1, 2]; Constant(value=i64 [0]) -> a; Squeeze x, a -> y", &["Squeeze(axes=[0]) x -> y"]);
    check(12, "x: f32[1]; unused = f32 0; Relu x -> y", &["unused = f32 0.0", "Relu x -> y"]);
}

#[test]
fn what_is_newer_by_an_attribute_or_an_input_is_refused() {
    let newer = "another value than by default";
    refused(11, "x: f32[2]; ArgMax(select_last_index=1) x -> y", 12, newer);
    refused(18, "x: f32[1, 1, 4]; AveragePool(kernel_shape=[2], dilations=[2]) x -> y", 19, newer);
    refused(9, "x: f32[1, 1, 4]; MaxPool(kernel_shape=[2], ceil_mode=1) x -> y", 10, newer);
    refused(9, "x: f32[1, 1, 4]; MaxPool(kernel_shape=[2], dilations=[2]) x -> y", 10, newer);
    refused(7, "x: f32[1, 1, 4]; MaxPool(kernel_shape=[2]) x -> y, i", 8, "indices");
    check(7, "x: f32[1, 1, 4]; MaxPool(kernel_shape=[2], dilations=[1]) x -> y", &["MaxPool(kernel_shape=[2]) x -> y"]);
    refused(18, "x: f32[2]; Cast(to=1, saturate=0) x -> y", 19, newer);
    refused(23, "x: f32[2]; Cast(to=1, round_mode=\"nearest\") x -> y", 24, newer);
    refused(10, "x: f32[1, 4, 1, 1]; DepthToSpace(blocksize=2, mode=\"CRD\") x -> y", 11, newer);
    refused(27, "x: f32[1, 1, 2, 2]; SpaceToDepth(blocksize=2, mode=\"CRD\") x -> y", 28, newer);
    refused(11, "x: f32[2, 2]; i: i64[2, 1]; GatherND(batch_dims=1) x, i -> y", 12, newer);
    refused(13, "x: f32[2]; s: i64[1]; Reshape(allowzero=1) x, s -> y", 14, newer);
    check(13, "x: f32[2]; s = i64 [-1]; Reshape(allowzero=1) x, s -> y", &["s = i64 [-1]", "Reshape x, s -> y"]);
    refused(10, "x: f32[2]; k = i64 [1]; TopK(largest=0) x, k -> v, i", 11, newer);
    refused(15, "x: f32[2]; i: i64[1]; u: f32[1]; ScatterElements(reduction=\"add\") x, i, u -> y", 16, "reduction");
    refused(17, "x: f32[2]; i: i64[1, 1]; u: f32[1]; ScatterND(reduction=\"max\") x, i, u -> y", 18, "reduction");
    refused(18, "x: f32[2]; p = i64 [1, 1]; Pad(mode=\"wrap\") x, p -> y", 19, "wraps");
    refused(27, "x: f32[2]; z: f32[2]; Mod x, z -> y", 28, "floor");
    refused(10, "x: f32[2]; i = i64 [-1]; Gather x, i -> y", 11, "from the end");
    refused(17, "x: f32[2]; a = i64 []; ReduceSumSquare(noop_with_empty_axes=1) x, a -> y", 18, "reduces nothing");
    refused(
        13,
        "x: f32[1, 2]; s: f32[2]; BatchNormalization(training_mode=1) x, s, s, s, s -> y, a, b",
        14,
        "statistics",
    );
    refused(14, "x: f16[1, 2]; s: f32[2]; BatchNormalization x, s, s, s, s -> y", 15, "different types");
    refused(11, "x: f32[2]; e: i64[2]; Pow x, e -> y", 12, "");
}

#[test]
fn quantization() {
    let per_tensor = "x: f32[2]; s: f32[]; z: u8[]; QuantizeLinear(axis=0) x, s, z -> y";
    check(12, per_tensor, &["QuantizeLinear x, s, z -> y"]);
    check(13, per_tensor, &["QuantizeLinear(axis=0) x, s, z -> y"]);
    refused(12, "x: f32[2]; s: f32[2]; QuantizeLinear(axis=0) x, s -> y", 13, "scale");
    refused(20, "x: i8[4]; s: f32[2]; DequantizeLinear(axis=0, block_size=2) x, s -> y", 21, "block_size");
    check(
        20,
        "x: f32[2]; s: f32[]; z: i8[]; QuantizeLinear(output_dtype=3) x, s, z -> y",
        &["QuantizeLinear x, s, z -> y"],
    );
    check(
        20,
        "x: f32[2]; s: f32[]; QuantizeLinear(output_dtype=3) x, s -> y",
        &["y_zero_point = i8 0", "QuantizeLinear x, s, y_zero_point -> y"],
    );
    check(22, "x: i8[2]; s: f32[]; DequantizeLinear(output_dtype=1) x, s -> y", &["DequantizeLinear x, s -> y"]);
    refused(22, "x: i8[2]; s: f32[]; DequantizeLinear(output_dtype=10) x, s -> y", 23, "output_dtype");
    refused(22, "x: f16[2]; s: f32[]; QuantizeLinear x, s -> y", 23, "different types");
}

#[test]
fn element_types() {
    refused(12, "x: bf16[2]; Exp x -> y", 13, "`x` is of type bf16");
    refused(21, "x: bf16[1, 1, 4]; w: bf16[1, 1, 2]; Conv x, w -> y", 22, "bf16");
    refused(18, "x: f32[2]; Cast(to=17) x -> y", 19, "f8e4m3fn");
    refused(20, "x: i4[2]; s: f32[]; DequantizeLinear x, s -> y", 21, "i4");
    refused(20, "x: f32[2]; s: f32[]; QuantizeLinear(output_dtype=22) x, s -> y", 21, "i4");
    refused(22, "x: f4e2m1[2]; Identity x -> y", 23, "f4e2m1");
    refused(23, "x: f8e8m0[2]; Transpose x -> y", 24, "f8e8m0");
    refused(27, "x: f32[2]; Cast(to=27) x -> y", 28, "f6e2m3");
    refused(27, "x: f6e3m2[2]; Cast(to=1) x -> y", 28, "f6e3m2");
    refused(27, "x: f6e2m3[2]; s: f32[]; DequantizeLinear x, s -> y", 28, "f6e2m3");
    refused(27, "x: f32[2]; s: f32[]; QuantizeLinear(output_dtype=28) x, s -> y", 28, "f6e3m2");
    refused(24, "x: u2[2]; Squeeze x -> y", 25, "u2");
    refused(11, "x: i8[1, 1, 4]; MaxPool(kernel_shape=[2]) x -> y", 12, "i8");
    refused(10, "a: f32[2]; b: f32[2]; Equal a, b -> y", 11, "f32");
    refused(11, "a: i32[2]; b: i32[2]; Max a, b -> y", 12, "i32");
    refused(26, "a: f16[]; Range a, a, a -> y", 27, "f16");
    check(8, "x: f32[2]; Constant(value=i64 3) -> c; Identity c -> y", &["c = i64 3", "Identity c -> y"]);
}

#[test]
fn element_types_that_an_operator_no_longer_takes() {
    let network = graph("x: i32[2]; Erf x -> y");
    let at = |opset, own_opset| lower(&network, Target { opset, own_opset, microsoft: false });
    assert!(at(12, 9).is_ok() && at(17, 17).is_ok());
    assert!(matches!(at(13, 9), Err(LowerError::Gone { newest: 12, opset: 13, .. })));
    least("x: i32[2]; Erf x -> y", 9);
}

#[test]
fn negative_axes_count_from_the_front_before_opset_11() {
    let concat = "x: f32[2, 3]; Concat(axis=-1) x, x -> y";
    check(11, concat, &["Concat(axis=-1) x, x -> y"]);
    check(10, concat, &["Concat(axis=1) x, x -> y"]);
    check(10, "x: f32[2]; a = i64 [-1]; Unsqueeze x, a -> y", &["Unsqueeze(axes=[1]) x -> y"]);
    check(10, "x: f32[2, 3]; Softmax x -> y", &["Softmax x -> y"]);
    check(10, "x: f32[2]; Softmax x -> y", &["Softmax(axis=0) x -> y"]);
    refused(10, "x: f32[..]; Concat(axis=-1) x, x -> y", 11, "from the end");
}

#[test]
fn resizing() {
    let asymmetric = "coordinate_transformation_mode=\"asymmetric\", nearest_mode";
    let grown = format!("x: f32[1, 2]; s = f32 [1, 2]; Resize({asymmetric}=\"floor\") x, _, s -> y");
    let shrunk = format!("x: f32[1, 2]; s = f32 [1, 0.5]; Resize({asymmetric}=\"ceil\") x, _, s -> y");
    check(
        11,
        &grown,
        &["s = f32 [1.0, 2.0]", "y_roi = f32 []", &format!("Resize({asymmetric}=\"floor\") x, y_roi, s -> y")],
    );
    check(10, &grown, &["s = f32 [1.0, 2.0]", "Resize x, s -> y"]);
    check(9, &grown, &["s = f32 [1.0, 2.0]", "Upsample x, s -> y"]);
    check(8, &grown, &["Upsample(scales=[1.0, 2.0]) x -> y"]);
    check(10, &shrunk, &["s = f32 [1.0, 0.5]", "Resize x, s -> y"]);
    refused(9, &shrunk, 10, "1 or more");
    refused(10, &shrunk.replace("0.5", "2"), 11, "rounds");
    refused(10, "x: f32[1, 2]; s = f32 [1, 2]; Resize x, _, s -> y", 11, "newer");
    refused(10, "x: f32[1, 2]; s = i64 [1, 4]; Resize x, _, _, s -> y", 11, "newer");
    check(
        12,
        "x: f32[1, 2]; s = i64 [1, 4]; Resize x, _, _, s -> y",
        &["s = i64 [1, 4]", "y_roi = f32 []", "y_scales = f32 []", "Resize x, y_roi, y_scales, s -> y"],
    );
    check(
        17,
        "x: f32[1, 2]; s = f32 [2]; Resize(axes=[1]) x, _, s -> y",
        &["y_scales = f32 [1.0, 2.0]", "Resize x, _, y_scales -> y"],
    );
    refused(17, "x: f32[1, 2]; s = f32 [1, 2]; Resize(antialias=1) x, _, s -> y", 18, "antialias");
    refused(
        18,
        "x: f32[1, 2]; s = f32 [1, 2]; Resize(coordinate_transformation_mode=\"half_pixel_symmetric\") x, _, s -> y",
        19,
        "coordinates",
    );
}

#[test]
fn operators_of_their_own_name() {
    check(10, "x: f32[2]; i: i64[1]; u: f32[1]; ScatterElements x, i, u -> y", &["Scatter x, i, u -> y"]);
    refused(8, "x: f32[2]; i: i64[1]; u: f32[1]; ScatterElements x, i, u -> y", 9, "newer");
    let gelu = graph("x: f32[2]; Gelu x -> y");
    let written = lower(&gelu, Target { opset: 13, own_opset: 13, microsoft: true }).expect("imported");
    assert_eq!(show_raw(&written), ["com.microsoft.Gelu x -> y"]);
    assert_eq!(least_opset(&gelu, true).0, 7);
    assert_eq!(least_opset(&gelu, false).0, 20);
}

#[test]
fn what_an_opset_lacks_is_decomposed() {
    let x = "x: f32[2, 3, 4]; s: f32[4]; b: f32[4]; c: f32[3];";
    let check = |opset: u32, node: &str, operators: &str| check_operators(opset, &format!("{x} {node}"), operators);
    let normalized = "ReduceMean Sub Mul ReduceMean Add Sqrt Div Mul Add";
    check(16, "LayerNormalization x, s, b -> y", normalized);
    check(16, "LayerNormalization x, s -> y", "ReduceMean Sub Mul ReduceMean Add Sqrt Div Mul");
    check(16, "LayerNormalization(axis=2) x, s, b -> y, m, i", &format!("{normalized} Identity Reciprocal"));
    check(22, "RMSNormalization x, s -> y", "Mul ReduceMean Add Sqrt Div Mul");
    let group = "Expand Expand Shape Reshape InstanceNormalization Reshape Unsqueeze Unsqueeze Mul Add";
    check(20, "GroupNormalization(num_groups=3) x, c, c -> y", group);
    check(19, "Gelu x -> y", "Div Erf Add Mul Mul");
    check(19, "Gelu(approximate=\"tanh\") x -> y", "Mul Mul Mul Add Mul Tanh Add Mul Mul");
    check(17, "Mish x -> y", "Softplus Tanh Mul");
    check(13, "HardSwish x -> y", "HardSigmoid Mul");
    check(23, "Swish x -> y", "Sigmoid Mul");
    check(23, "Swish(alpha=2.0) x -> y", "Mul Sigmoid Mul");
    check(11, "Celu(alpha=2.0) x -> y", "Div Elu Mul");
    check(11, "GreaterOrEqual x, s -> y", "Greater Equal Or");
    check(11, "LessOrEqual x, s -> y", "Less Equal Or");
    check(14, "CastLike x, s -> y", "Cast");
    check(14, "Shape(start=1) x -> y", "Shape Slice");
    check(17, "ReduceMax(noop_with_empty_axes=1) x -> y", "Identity");
    check(12, "Softmax(axis=1) x -> y", "Transpose Softmax Transpose");
    check(12, "LogSoftmax(axis=0) x -> y", "Transpose LogSoftmax Transpose");
    check(12, "Hardmax(axis=0) x -> y", "Transpose Hardmax Transpose");
    check(7, "Sum x, s, b -> y", "Add Add");
    check(7, "Mean x, s -> y", "Add Div");
    check_operators(10, "a: f32[2, 3]; Gemm a, a -> y", "Gemm");
    check_operators(
        16,
        "x: f16[2, 4]; s: f16[4]; LayerNormalization x, s -> y",
        &format!("Cast {}", "ReduceMean Sub Mul ReduceMean Add Sqrt Div Cast Mul"),
    );
    check_operators(
        13,
        "x: f32[1, 2, 3]; w: f32[1, 4, 3]; r: f32[1, 4, 4]; RNN(hidden_size=4, layout=1) x, w, r -> y, h",
        "Transpose RNN Transpose Transpose",
    );
}

#[test]
fn parts_pads_and_splits() {
    check_operators(17, "x: f32[7]; Split(num_outputs=2) x -> a, b", "Split");
    check(17, "x: f32[7]; Split(num_outputs=2) x -> a, b", &["a_split = i64 [4, 3]", "Split x, a_split -> a, b"]);
    check(17, "x: f32[6]; Split(num_outputs=2) x -> a, b", &["Split x -> a, b"]);
    refused(17, "x: f32[n]; Split(num_outputs=2) x -> a, b", 18, "same size");
    refused(17, "x: f32[6]; Split(num_outputs=-3) x -> a, b", 18, "same size");
    check(
        17,
        "x: f32[2, 3]; p = i64 [1, 2]; a = i64 [-1]; Pad x, p, _, a -> y",
        &["y_pads = i64 [0, 1, 0, 2]", "Pad x, y_pads -> y"],
    );
    refused(17, "x: f32[..]; p = i64 [1, 2]; a = i64 [0]; Pad x, p, _, a -> y", 18, "`a`");
}

#[test]
fn what_cannot_be_decomposed_is_refused() {
    refused(13, "x: f32[2, 2]; Trilu x -> y", 14, "newer");
    refused(16, "x: f32[..]; s: f32[4]; LayerNormalization(axis=1) x, s -> y", 17, "newer");
    refused(12, "x: f32[..]; Softmax(axis=1) x -> y", 13, "after its axis");
    refused(7, "x: f32[2]; z: f32[1]; Max x, z -> y", 8, "same shape");
    check(7, "x: f32[2]; z: f32[2]; Max x, z -> y", &["Max x, z -> y"]);
    refused(10, "x: f32[2]; a = i64 0; CumSum x, a -> y", 11, "newer");
    refused(22, "q: f32[1, 1, 1, 1]; Attention q, q, q -> y", 23, "newer");
    refused(24, "q: f32[1, 1, 1, 1]; Attention(left_window_size=1) q, q, q -> y", 25, "left_window_size");
    refused(23, "q: f32[1, 1, 1, 1]; n: i64[1]; Attention q, q, q, _, _, _, n -> y", 24, "`n`");
}

#[test]
fn a_file_of_an_older_opset_is_written_as_it_was() {
    kept(11, "x: f32[1, 2]; Squeeze(axes=[0]) x -> y");
    kept(9, "x: f32[2]; Clip(max=6.0, min=0.0) x -> y");
    kept(9, "x: f32[2]; Pad(pads=[0, 1], value=2.5) x -> y");
    kept(9, "x: f32[2]; Slice(axes=[0], ends=[3], starts=[1]) x -> y");
    kept(17, "x: f32[2]; Split x -> a, b");
    kept(7, "x: f32[2]; Dropout(ratio=0.25) x -> y, mask");
    kept(10, "x: f32[2]; Dropout x -> y, mask");
    kept(12, "x: f32[2, 3, n]; Softmax x -> y");
    kept(12, "x: f32[2, 3, n]; LogSoftmax(axis=-2) x -> y");
    kept(7, "x: f32[..]; Hardmax(axis=2) x -> y");
    kept(7, "x: f32[2, 3]; Softmax x -> y");
    kept(9, "x: f32[..]; Concat(axis=-1) x, x -> y");
    kept(7, "x: f32[1, 2]; Upsample(scales=[1.0, 2.0]) x -> y");
    kept(9, "x: f32[1, 2]; s: f32[2]; Upsample(mode=\"linear\") x, s -> y");
    kept(10, "x: f32[1, 2]; s = f32 [1.0, 0.5]; Resize x, s -> y");
    kept(10, "x: f32[2]; i: i64[1]; u: f32[1]; Scatter x, i, u -> y");
    kept(7, "x: f32[2]; z: f32[n]; Max x, z -> y");
    kept(9, "x: f32[2]; Constant(value=i64 [0]) -> y");
    kept(7, "Constant(value=i64 [0]) -> y");
    kept(8, "x: f32[2]; Scan(num_scan_inputs=1) _, x -> y");
}

#[test]
fn a_flattened_softmax_at_the_opset_between() {
    let text = "x: f32[2, 3, n]; Flatten x -> f; Softmax f -> r; Shape x -> s; Reshape(allowzero=1) r, s -> y";
    check(13, text, &["Flatten x -> f", "Softmax f -> r", "Shape x -> s", "Reshape r, s -> y"]);
    check(12, text, &["Softmax x -> y"]);
    check(14, text, &["Flatten x -> f", "Softmax f -> r", "Shape x -> s", "Reshape(allowzero=1) r, s -> y"]);
    let shared = format!("{text}; Neg s -> z");
    refused(12, &shared, 14, "allowzero");
}

#[test]
fn the_lowest_opset_is_that_of_the_forms() {
    least("x: f32[1, 2]; a = i64 [0]; Squeeze x, a -> y", 7);
    least("x: f32[1, 2]; a: i64[1]; Squeeze x, a -> y", 13);
    least("x: f32[2, 3]; s: f32[3]; LayerNormalization x, s -> y", 17);
    least("x: f32[2]; s: f32[2]; QuantizeLinear(axis=0) x, s -> y", 13);
    least("x: bf16[2]; Exp x -> y", 13);
    least("x: f32[2]; Swish x -> a; Exp x -> b", 24);
    least("x: f32[2, 3]; c = f32 0; Clip x, c -> y", 7);
    least("x: i32[2, 3]; c: i32[]; Clip x, c -> y", 12);
    let (_, why) = least_opset(&graph("x: f32[2]; Swish x -> a"), false);
    assert_eq!(why.as_deref(), Some("Swish `a`: the operator is newer"));
}

#[test]
fn an_opaque_operator_keeps_the_opset() {
    let network = graph("x: f32[2]; Unheard x -> y");
    let at = |opset| lower(&network, Target { opset, own_opset: 13, microsoft: false }).map(|raw| show_raw(&raw));
    assert_eq!(at(13).expect("its own"), ["Unheard x -> y"]);
    let message = "Unheard `y` is not known to aludel and cannot be taken from opset 13 to 17";
    assert_eq!(at(17).expect_err("another").to_string(), message);
    check(17, "x: f32[2]; org.example.Unheard x -> y", &["org.example.Unheard x -> y"]);
    assert!(matches!(lower(&network, target(6)), Err(LowerError::TooOld { opset: 6 })));
}

#[test]
fn bodies_are_written_alike_and_read_constants_around_them() {
    let branch = |name: &str| {
        let mut builder = GraphBuilder::new("branch");
        let (inputs, outputs) = (vec![Some("x".into()), Some("axes".into())], vec![Some(name.into())]);
        builder.push(Node::new(Op::Squeeze, inputs, outputs));
        builder.output(&name.into());
        builder.finish_body().expect("a body")
    };
    let mut builder = GraphBuilder::new("network");
    builder.input("x", TensorType::new(DType::F32, [1usize, 2]));
    builder.initializer("axes", Tensor::vector(vec![0i64]));
    let condition = builder.input("condition", TensorType::new(DType::Bool, [0usize; 0]));
    let y = builder.node(Op::If(If { then_branch: branch("a"), else_branch: branch("b") }), &[&condition]);
    builder.output(&y);
    let network = builder.finish().expect("a graph");
    assert_eq!(least_opset(&network, false).0, 7);
    let written = lower(&network, target(11)).expect("no computed axes");
    let branches = "else_branch={Squeeze(axes=[0]) x -> b}, then_branch={Squeeze(axes=[0]) x -> a}";
    assert_eq!(show_raw(&written), [format!("If({branches}) condition -> if")]);
    assert_eq!(
        show_raw(&lower(&network, target(13)).expect("newer")).first().map(String::as_str),
        Some("axes = i64 [0]")
    );
}
