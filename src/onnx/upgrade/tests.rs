//! Every rule on the way to the canonical form.

use super::super::raw::Context;
use super::super::raw_text::{parse, show_constants, show_nodes};
use super::{UpgradeError, upgrade};
use crate::graph::attribute::{Attribute, SparseTensor};
use crate::graph::tensor::Tensor;
use crate::graph::{Name, Node, Op};

fn converted(opset: u32, old: &str) -> Result<(Vec<Node>, Vec<String>), UpgradeError> {
    let text = parse(old);
    let constants = text.constants.iter().map(|(name, _)| name.clone());
    let values = text.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs).flatten().cloned());
    let mut context = Context::new(constants.chain(values));
    context.enter();
    text.types.iter().for_each(|info| context.declare(info));
    text.constants.iter().for_each(|(name, tensor)| context.declare_constant(name, tensor));
    let mut nodes = Vec::new();
    for node in text.nodes {
        nodes.extend(upgrade(node, opset, &mut context)?);
    }
    Ok((nodes, show_constants(context.leave().iter())))
}

/// What a file of this opset says, in canonical form: the constants that are added, then the nodes.
fn check(opset: u32, old: &str, new: &[&str]) {
    let (nodes, mut lines) = converted(opset, old).expect("a well-formed node");
    lines.extend(show_nodes(&nodes));
    assert_eq!(lines, new, "opset {opset}: {old}");
}

fn is_opaque(opset: u32, old: &str) {
    let (nodes, added) = converted(opset, old).expect("a well-formed node");
    assert!(nodes.iter().any(|node| matches!(node.op, Op::Opaque(_))), "opset {opset}: {old} gives {nodes:?}");
    assert!(added.is_empty(), "opset {opset}: {old} leaves {added:?}");
}

fn refusal(opset: u32, old: &str) -> String {
    converted(opset, old).expect_err("malformed").to_string()
}

#[test]
fn attributes_become_inputs() {
    check(11, "Squeeze(axes=[0]) x -> y", &["y_axes = i64 [0]", "Squeeze x, y_axes -> y"]);
    check(11, "Squeeze x -> y", &["Squeeze x -> y"]);
    check(13, "Squeeze x, axes -> y", &["Squeeze x, axes -> y"]);
    check(7, "Unsqueeze(axes=[1, 2]) x -> y", &["y_axes = i64 [1, 2]", "Unsqueeze x, y_axes -> y"]);
    check(12, "ReduceSum(axes=[1], keepdims=0) x -> y", &["y_axes = i64 [1]", "ReduceSum(keepdims=0) x, y_axes -> y"]);
    for op in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"] {
        let (old, new) = (format!("Reduce{op}(axes=[1]) x -> y"), format!("Reduce{op} x, y_axes -> y"));
        check(17, &old, &["y_axes = i64 [1]", &new]);
    }
    check(17, "ReduceMean(axes=[]) x -> y", &["ReduceMean x -> y"]);
    check(
        9,
        "Slice(axes=[0], ends=[3], starts=[1]) x -> y",
        &["y_starts = i64 [1]", "y_ends = i64 [3]", "y_axes = i64 [0]", "Slice x, y_starts, y_ends, y_axes -> y"],
    );
    check(12, "Split(axis=1, split=[1, 2]) x -> a, b", &["a_split = i64 [1, 2]", "Split(axis=1) x, a_split -> a, b"]);
    check(17, "Split x -> a, b", &["Split(num_outputs=2) x -> a, b"]);
    check(17, "Split x, sizes -> a, b", &["Split x, sizes -> a, b"]);
    check(9, "TopK(k=3) x -> v, i", &["v_K = i64 [3]", "TopK x, v_K -> v, i"]);
    check(
        9,
        "x: f32[2]; Pad(pads=[0, 1], value=2.5) x -> y",
        &["y_pads = i64 [0, 1]", "y_constant_value = f32 2.5", "Pad x, y_pads, y_constant_value -> y"],
    );
    check(9, "Pad(mode=\"edge\", pads=[0, 1]) x -> y", &["y_pads = i64 [0, 1]", "Pad(mode=\"edge\") x, y_pads -> y"]);
    check(9, "Dropout(ratio=0.25) x -> y", &["y_ratio = f32 0.25", "Dropout x, y_ratio -> y"]);
    check(4, "Reshape(shape=[2, 3]) x -> y", &["y_shape = i64 [2, 3]", "Reshape x, y_shape -> y"]);
}

#[test]
fn an_added_constant_takes_a_name_that_is_free() {
    check(11, "y_axes = f32 [0]; Squeeze(axes=[0]) x -> y", &["y_axes_2 = i64 [0]", "Squeeze x, y_axes_2 -> y"]);
}

#[test]
fn limits_take_the_type_of_the_data() {
    check(
        6,
        "x: f32[2]; Clip(max=6.0, min=0.0) x -> y",
        &["y_min = f32 0.0", "y_max = f32 6.0", "Clip x, y_min, y_max -> y"],
    );
    check(6, "x: f16[2]; Clip(max=6.0) x -> y", &["y_max = f16 6.0", "Clip x, _, y_max -> y"]);
    check(6, "x: f32[2]; Relu x -> z; Clip(min=0.5) z -> y", &["y_min = f32 0.5", "Relu x -> z", "Clip z, y_min -> y"]);
    check(6, "Clip(min=-3.4028235e38) x -> y", &["Clip x -> y"]);
    is_opaque(6, "Clip(min=0.0) x -> y");
    is_opaque(6, "x: i32[2]; Clip(min=0.0) x -> y");
    is_opaque(10, "Pad(pads=[0, 1], value=2.5) x -> y");
}

#[test]
fn softmax_flattened_its_input() {
    check(11, "Softmax(axis=-1) x -> y", &["Softmax x -> y"]);
    check(12, "x: f32[2, 3]; Softmax x -> y", &["Softmax(axis=1) x -> y"]);
    check(7, "x: f32[2, 3, 1, 1]; LogSoftmax x -> y", &["LogSoftmax(axis=1) x -> y"]);
    check(13, "Softmax x -> y", &["Softmax x -> y"]);
    let nodes = [
        "Flatten x -> y_flat",
        "Hardmax y_flat -> y_rows",
        "Shape x -> y_shape",
        "Reshape(allowzero=1) y_rows, y_shape -> y",
    ];
    check(12, "x: f32[2, 3, n]; Hardmax x -> y", &nodes);
    check(12, "Hardmax x -> y", &nodes);
}

#[test]
fn normalizations() {
    check(7, "BatchNormalization(spatial=1) x, s, b, m, v -> y", &["BatchNormalization x, s, b, m, v -> y"]);
    check(9, "BatchNormalization x, s, b, m, v -> y, _, _", &["BatchNormalization x, s, b, m, v -> y"]);
    check(
        14,
        "BatchNormalization(training_mode=1) x, s, b, m, v -> y, a, c",
        &["BatchNormalization(training_mode=1) x, s, b, m, v -> y, a, c"],
    );
    is_opaque(8, "BatchNormalization(spatial=0) x, s, b, m, v -> y");
    is_opaque(9, "BatchNormalization x, s, b, m, v -> y, a, b, c, d");
    check(
        18,
        "GroupNormalization(num_groups=2) x, s, b -> y",
        &[
            "y_groups = i64 [2]",
            "y_axis = i64 [1]",
            "y_all = i64 [-1]",
            "Shape(end=2, start=1) x -> y_channels",
            "Div y_channels, y_groups -> y_repeats",
            "Concat(axis=0) y_groups, y_repeats -> y_grid",
            "Unsqueeze s, y_axis -> y_scale",
            "Expand y_scale, y_grid -> y_scale_2",
            "Reshape y_scale_2, y_all -> y_scale_3",
            "Unsqueeze b, y_axis -> y_bias",
            "Expand y_bias, y_grid -> y_bias_2",
            "Reshape y_bias_2, y_all -> y_bias_3",
            "GroupNormalization(num_groups=2) x, y_scale_3, y_bias_3 -> y",
        ],
    );
    check(21, "GroupNormalization(num_groups=2) x, s, b -> y", &["GroupNormalization(num_groups=2) x, s, b -> y"]);
}

#[test]
fn the_mask_of_a_dropout_was_of_the_type_of_the_data() {
    check(9, "x: f32[2]; Dropout x -> y, mask", &["Dropout x -> y, mask_bool", "Cast(to=1) mask_bool -> mask"]);
    check(10, "Dropout x -> y, mask", &["Dropout x -> y, mask"]);
    is_opaque(9, "Dropout(ratio=0.25) x -> y, mask");
}

#[test]
fn resizing() {
    let upsampled = "Resize(coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"floor\") x, _, y_scales -> y";
    check(7, "Upsample(scales=[1.0, 2.0]) x -> y", &["y_scales = f32 [1.0, 2.0]", upsampled]);
    check(
        9,
        "Upsample(mode=\"linear\") x, s -> y",
        &["Resize(coordinate_transformation_mode=\"asymmetric\", mode=\"linear\") x, _, s -> y"],
    );
    let resized = |rounding| {
        format!("Resize(coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"{rounding}\") x, _, s -> y")
    };
    check(10, "s = f32 [1, 2]; Resize x, s -> y", &[&resized("floor")]);
    check(10, "s = f32 [1, 0.5]; Resize x, s -> y", &[&resized("ceil")]);
    check(
        10,
        "Resize(mode=\"linear\") x, s -> y",
        &["Resize(coordinate_transformation_mode=\"asymmetric\", mode=\"linear\") x, _, s -> y"],
    );
    is_opaque(10, "s = f32 [2, 0.5]; Resize x, s -> y");
    is_opaque(10, "Resize x, s -> y");
    is_opaque(6, "Upsample(height_scale=2.0, width_scale=2.0) x -> y");
}

#[test]
fn constants() {
    check(12, "Constant(value_float=1.5) -> y", &["Constant(value=f32 1.5) -> y"]);
    check(12, "Constant(value_floats=[1.5, 2.5]) -> y", &["Constant(value=f32 [1.5, 2.5]) -> y"]);
    check(12, "Constant(value_int=3) -> y", &["Constant(value=i64 3) -> y"]);
    check(12, "Constant(value_ints=[3]) -> y", &["Constant(value=i64 [3]) -> y"]);
    check(12, "Constant(value_string=\"a\") -> y", &["Constant(value=string a) -> y"]);
    check(1, "Constant(value=i64 3) -> y", &["Constant(value=i64 3) -> y"]);
    assert_eq!(refusal(12, "Constant -> y"), "Constant `y`: attribute `value` is missing");
}

fn sparse(indices: Tensor, shape: &[usize]) -> Result<Vec<std::string::String>, UpgradeError> {
    let mut node = parse("Constant -> y").nodes.remove(0);
    let values = Tensor::vector(vec![5i64, 7]);
    let value = Attribute::SparseTensor(SparseTensor { values, indices, shape: shape.to_vec() });
    node.attributes.push(("sparse_value".to_string(), value));
    let mut context = Context::new([Name::from("y")]);
    context.enter();
    upgrade(node, 13, &mut context).map(|nodes| show_nodes(&nodes))
}

#[test]
fn sparse_constants() {
    let linear = Tensor::vector(vec![1i64, 3]);
    assert_eq!(sparse(linear.clone(), &[4]).expect("fits"), ["Constant(value=i64 [0, 5, 0, 7]) -> y"]);
    let grid = Tensor::new(&[2, 2], vec![0i64, 1, 1, 1]).expect("four");
    assert_eq!(sparse(grid.clone(), &[2, 2]).expect("fits"), ["Constant(value=i64[2, 2] [0, 5, 0, 7]) -> y"]);
    assert!(sparse(linear.clone(), &[3]).is_err());
    assert!(sparse(grid, &[2, 1]).is_err());
    assert!(sparse(Tensor::vector(vec![-1i64, 0]), &[4]).is_err());
    assert!(sparse(linear, &[1 << 40]).expect("stays").iter().all(|line| line.contains("sparse_value")));
}

#[test]
fn other_names_and_defaults() {
    check(9, "Scatter(axis=1) x, i, u -> y", &["ScatterElements(axis=1) x, i, u -> y"]);
    check(13, "com.microsoft.Gelu x -> y", &["Gelu x -> y"]);
    check(13, "ai.onnx.Relu x -> y", &["Relu x -> y"]);
    check(21, "QuantizeLinear(output_dtype=0) x, s -> y", &["QuantizeLinear x, s -> y"]);
    check(23, "DequantizeLinear(output_dtype=0) x, s -> y", &["DequantizeLinear x, s -> y"]);
    is_opaque(8, "Scan(num_scan_inputs=1) _, x -> y");
    is_opaque(21, "Squeeze(axes=[0]) x -> y");
    is_opaque(40, "Relu(slope=0.5) x -> y");
    check(40, "Relu x -> y", &["Relu x -> y"]);
}

#[test]
fn forms_before_opset_7() {
    check(5, "Relu(consumed_inputs=[0]) x -> y", &["Relu x -> y"]);
    check(6, "Add(broadcast=1) a, b -> y", &["Add a, b -> y"]);
    check(
        6,
        "a: f32[2, 3, 4]; b: f32[3]; Add(axis=1, broadcast=1) a, b -> y",
        &["y_axes = i64 [1]", "Unsqueeze b, y_axes -> y_aligned", "Add a, y_aligned -> y"],
    );
    check(6, "a: f32[2, 3]; b: f32[3]; Mul(axis=1, broadcast=1) a, b -> y", &["Mul a, b -> y"]);
    is_opaque(6, "Add(axis=1, broadcast=1) a, b -> y");
    for axis in [i64::MIN, i64::MIN + 3, i64::MAX - 1, i64::MAX] {
        is_opaque(6, &format!("a: f32[2, 3, 4]; b: f32[3]; Add(axis={axis}, broadcast=1) a, b -> y"));
    }
    check(6, "Gemm(broadcast=1) a, b, c -> y", &["Gemm a, b, c -> y"]);
    check(
        6,
        "x: f32[1, 3, 2, 2]; s: f32[3]; PRelu x, s -> y",
        &["y_axes = i64 [1, 2]", "Unsqueeze s, y_axes -> y_aligned", "PRelu x, y_aligned -> y"],
    );
    check(6, "x: f32[1, 3]; s: f32[1]; PRelu x, s -> y", &["PRelu x, s -> y"]);
    is_opaque(6, "x: f32[1, 3, 2, 2]; PRelu x, s -> y");
    check(6, "Dropout(is_test=1) x -> y", &["Dropout x -> y"]);
    is_opaque(6, "Dropout x -> y");
    check(5, "Cast(to=\"INT64\") x -> y", &["Cast(to=7) x -> y"]);
    is_opaque(5, "Cast(to=\"FLOAT128\") x -> y");
    check(3, "Concat a, b -> y", &["Concat(axis=1) a, b -> y"]);
    check(5, "Selu x -> y", &["Selu(alpha=1.6732, gamma=1.0507) x -> y"]);
    check(1, "Pad(paddings=[0, 1]) x -> y", &["y_pads = i64 [0, 1]", "Pad x, y_pads -> y"]);
    is_opaque(1, "Split x, sizes -> a, b");
    is_opaque(5, "Tile x, tiles, axis -> y");
}

#[test]
fn malformed_attributes_are_refused_by_name() {
    assert_eq!(refusal(11, "Unsqueeze x -> y"), "Unsqueeze `y`: attribute `axes` is missing");
    assert_eq!(refusal(9, "Slice(starts=[0]) x -> y"), "Slice `y`: attribute `ends` is missing");
    assert_eq!(refusal(9, "TopK x -> v, i"), "TopK `v`: attribute `k` is missing");
    assert_eq!(refusal(8, "Upsample x -> y"), "Upsample `y`: attribute `scales` is missing");
    assert_eq!(refusal(9, "Pad x -> y"), "Pad `y`: attribute `pads` is missing");
    assert_eq!(
        refusal(11, "Squeeze(axes=1) x -> y"),
        "Squeeze `y`: attribute `axes` should be a list of integers, got Int(1)"
    );
    assert_eq!(refusal(13, "Concat a -> y"), "Concat `y`: attribute `axis` is missing");
    assert_eq!(
        refusal(18, "GroupNormalization x, s, b -> y"),
        "GroupNormalization `y`: attribute `num_groups` is missing"
    );
}

/// Half of a conversion would say something that the file does not.
#[test]
fn a_node_with_an_attribute_that_its_operator_lacks_keeps_its_own_form() {
    for (opset, node) in [
        (10, "Resize(mode=\"linear\", strange=1) x, scales -> y"),
        (12, "Squeeze(axes=[0], strange=1) x -> y"),
        (18, "GroupNormalization(epsilon=0.5, num_groups=2, strange=1) x, scale, bias -> y"),
    ] {
        check(opset, node, &[node]);
    }
}
