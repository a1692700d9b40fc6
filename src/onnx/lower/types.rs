//! From which opset on the operators take which element types: what ONNX's schemas admitted after the operator's first
//! version (and after opset 7).

use super::super::raw::Context;
use super::{Problem, Target};
use crate::graph::attribute::{Attribute, AttributeValue};
use crate::graph::tensor::DType::{
    self, BF16, Bool, Complex64, Complex128, F4E2M1, F6E2M3, F6E3M2, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0,
    F16, F32, F64, I2, I4, I8, I16, I32, I64, String, U2, U4, U8, U16, U32, U64,
};
use crate::graph::{Name, Node, Op, ValueType};

#[derive(Clone, Copy)]
enum Place {
    Input(usize),
    Output(usize),
}
use Place::{Input, Output};

/// (first opset, the types that it admits)
type Late = &'static [(u32, &'static [DType])];

const INTEGERS: &[DType] = &[I64, I32, I16, I8, U64, U32, U16, U8];
const INTEGERS_32: &[DType] = &[I64, I32, U64, U32];
const FLOAT8: &[DType] = &[F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ];
/// Cast and the linear quantization operators take these, nothing else of ours does.
const FLOAT6: &[DType] = &[F6E2M3, F6E3M2];
const BF16_13: Late = &[(13, &[BF16])];
const BF16_16: Late = &[(16, &[BF16])];
const BF16_22: Late = &[(22, &[BF16])];
const BF16_28: Late = &[(28, &[BF16])];
const INTEGERS_9: Late = &[(9, INTEGERS), (13, &[BF16])];
const INTEGERS_32_9: Late = &[(9, INTEGERS_32), (13, &[BF16])];
const INTEGERS_12: Late = &[(12, INTEGERS), (13, &[BF16])];
const NARROW_14: Late = &[(13, &[BF16]), (14, &[I16, I8, U16, U8])];
const BYTES_12: Late = &[(12, &[I8, U8]), (13, &[BF16]), (20, &[Bool])];
const FLOAT8_21: Late = &[(21, FLOAT8)];
const HALVES_19: Late = &[(19, &[BF16, F16])];
const ANY_13: Late = &[(13, &[BF16]), (19, FLOAT8), (21, &[I4, U4]), (23, &[F4E2M1]), (24, &[F8E8M0]), (25, &[I2, U2])];
const ANY_13_FLOAT8_21: Late =
    &[(13, &[BF16]), (21, FLOAT8), (21, &[I4, U4]), (23, &[F4E2M1]), (24, &[F8E8M0]), (25, &[I2, U2])];
const ANY_16: Late = &[(16, &[BF16]), (19, FLOAT8), (21, &[I4, U4]), (23, &[F4E2M1]), (24, &[F8E8M0]), (25, &[I2, U2])];
const CAST: Late = &[
    (9, &[String]),
    (13, &[BF16]),
    (19, FLOAT8),
    (21, &[I4, U4]),
    (23, &[F4E2M1]),
    (24, &[F8E8M0]),
    (25, &[I2, U2]),
    (28, FLOAT6),
];
const CAST_LIKE: Late = &[(19, FLOAT8), (21, &[I4, U4]), (23, &[F4E2M1]), (24, &[F8E8M0]), (25, &[I2, U2])];
const FLATTEN: Late = &[
    (9, INTEGERS),
    (9, &[Bool, String, Complex64, Complex128]),
    (13, &[BF16]),
    (21, FLOAT8),
    (21, &[I4, U4]),
    (23, &[F4E2M1]),
    (24, &[F8E8M0]),
    (25, &[I2, U2]),
];
const CONSTANT: Late = &[
    (9, INTEGERS),
    (9, &[Bool, String, Complex64, Complex128]),
    (13, &[BF16]),
    (19, FLOAT8),
    (21, &[I4, U4]),
    (23, &[F4E2M1]),
    (24, &[F8E8M0]),
    (25, &[I2, U2]),
];
const PAD: Late = &[
    (11, INTEGERS),
    (13, &[BF16, Bool, String, Complex64, Complex128]),
    (21, FLOAT8),
    (21, &[I4, U4]),
    (23, &[F4E2M1]),
    (24, &[F8E8M0]),
    (25, &[I2, U2]),
];
const QUANTIZED: Late = &[(19, FLOAT8), (21, &[I16, U16, I4, U4]), (23, &[F4E2M1]), (25, &[I2, U2]), (28, FLOAT6)];
const FILLED: Late = &[(20, &[BF16]), (20, FLOAT8), (21, &[I4, U4]), (23, &[F4E2M1]), (24, &[F8E8M0]), (25, &[I2, U2])];

const ROWS: &[(&[&str], Place, Late)] = &[
    (&["Abs", "ArgMax", "ArgMin", "Ceil", "Concat", "DepthToSpace", "Erf", "Exp", "Expand"], Input(0), BF16_13),
    (&["Floor", "Gather", "GatherElements", "GatherND", "Hardmax", "LRN", "Log", "LogSoftmax"], Input(0), BF16_13),
    (&["Mean", "Mod", "Neg", "NonZero", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum"], Input(0), BF16_13),
    (&["ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare"], Input(0), BF16_13),
    (&["Resize", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Slice", "Softmax"], Input(0), BF16_13),
    (&["SpaceToDepth", "Split", "Sqrt", "Sum", "Tanh", "Tile"], Input(0), BF16_13),
    (&["GreaterOrEqual", "LeakyRelu", "LessOrEqual"], Input(0), BF16_16),
    (&["Where"], Input(1), BF16_16),
    (&["Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Conv", "ConvTranspose"], Input(0), BF16_22),
    (&["Cos", "Cosh", "Elu", "GRU", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"], Input(0), BF16_22),
    (&["HardSwish", "InstanceNormalization", "LSTM", "LpNormalization", "Mish", "RNN", "Round"], Input(0), BF16_22),
    (&["Selu", "Sin", "Sinh", "Softplus", "Softsign", "Tan", "ThresholdedRelu"], Input(0), BF16_22),
    (&["Einsum"], Input(0), BF16_28),
    (&["OneHot"], Input(2), BF16_28),
    (&["Celu"], Input(0), &[(28, &[BF16, F16, F64])]),
    (&["Gemm", "MatMul"], Input(0), INTEGERS_32_9),
    (&["PRelu"], Input(0), &[(9, INTEGERS_32), (16, &[BF16])]),
    (&["Greater", "Less"], Input(0), INTEGERS_9),
    (&["Clip", "Max", "Min"], Input(0), INTEGERS_12),
    (&["Add", "Div", "Mul", "Sub"], Input(0), NARROW_14),
    (&["Relu"], Input(0), &[(13, &[BF16]), (14, &[I64, I32, I16, I8])]),
    (&["ReduceMax", "ReduceMin"], Input(0), BYTES_12),
    (&["MaxPool"], Input(0), &[(12, &[I8, U8]), (22, &[BF16])]),
    (&["BatchNormalization"], Input(0), &[(14, &[BF16])]),
    (&["Pow"], Input(0), &[(12, &[I64, I32]), (13, &[BF16])]),
    (&["Pow"], Input(1), &[(12, INTEGERS), (15, &[BF16])]),
    (&["CumSum"], Input(0), &[(14, &[BF16, F16])]),
    (&["Range"], Input(0), &[(27, &[BF16, F16])]),
    (&["TopK"], Input(0), &[(11, INTEGERS), (24, &[BF16])]),
    (&["Dropout"], Input(0), &[(13, &[BF16]), (22, FLOAT8)]),
    (&["IsNaN"], Input(0), &[(13, &[BF16]), (20, FLOAT8)]),
    (&["IsInf"], Input(0), &[(20, &[BF16, F16]), (20, FLOAT8)]),
    (&["Equal"], Input(0), &[(11, &[F64, F32, F16, I16, I8, U64, U32, U16, U8]), (13, &[BF16]), (19, &[String])]),
    (&["Identity", "Reshape", "Shape", "Size"], Input(0), ANY_13),
    (&["Squeeze", "Transpose", "Unsqueeze"], Input(0), ANY_13_FLOAT8_21),
    (&["Flatten"], Input(0), FLATTEN),
    (&["Pad"], Input(0), PAD),
    (&["If", "Loop", "Scan"], Output(0), ANY_16),
    (&["Cast"], Input(0), CAST),
    (&["Cast"], Output(0), CAST),
    (&["CastLike"], Input(0), CAST_LIKE),
    (&["CastLike"], Input(1), CAST_LIKE),
    (&["Constant"], Output(0), CONSTANT),
    (&["ConstantOfShape"], Output(0), FILLED),
    (&["QuantizeLinear"], Input(0), HALVES_19),
    (&["QuantizeLinear"], Input(1), &[(19, &[BF16, F16, I32]), (24, &[F8E8M0])]),
    (&["QuantizeLinear"], Input(2), QUANTIZED),
    (&["QuantizeLinear"], Output(0), QUANTIZED),
    (&["DequantizeLinear"], Input(0), QUANTIZED),
    (&["DequantizeLinear"], Input(1), &[(19, &[BF16, F16]), (24, &[F8E8M0])]),
    (&["DequantizeLinear"], Output(0), HALVES_19),
    (&["QLinearMatMul"], Input(0), FLOAT8_21),
    (&["QLinearMatMul"], Input(1), &[(21, &[BF16, F16])]),
    (&["QLinearMatMul"], Input(3), FLOAT8_21),
    (&["QLinearMatMul"], Input(7), FLOAT8_21),
];

/// Checks the element types that are known of a node of ONNX's own operators.
pub(super) fn check(node: &Node, target: Target, context: &Context) -> Result<(), Problem> {
    let opset = target.opset;
    // Files of opset 8 and before hold constants of integers, which no runtime minds.
    let usual = matches!(node.op, Op::Constant(_)) && opset < 9 && opset == target.own_opset;
    if usual || !node.op.domain().is_empty() || matches!(node.op, Op::Opaque(_)) {
        return Ok(());
    }
    not_only_tensors(node, opset, context)?;
    not_gone(node, target, context)?;
    for (_, place, late) in ROWS.iter().filter(|(ops, _, _)| ops.contains(&node.op.name())) {
        let Some((dtype, name)) = element_type(node, *place, context) else { continue };
        let since = late.iter().find(|(_, types)| types.contains(&dtype)).map(|&(since, _)| since);
        if let Some(least) = since.filter(|&since| since > opset) {
            return Err(Problem::new(least, format!("`{name}` is of type {dtype}")));
        }
    }
    Ok(())
}

/// (operators, the last opset in which they take integers)
const GONE: &[(&[&str], u32)] = &[(&["Erf"], 12), (&["ReduceLogSum", "ReduceLogSumExp"], 27)];

fn not_gone(node: &Node, target: Target, context: &Context) -> Result<(), Problem> {
    for &(_, newest) in GONE.iter().filter(|(ops, _)| ops.contains(&node.op.name())) {
        let integer = element_type(node, Input(0), context).filter(|(dtype, _)| dtype.is_integer());
        if let Some((dtype, name)) = integer.filter(|_| target.opset > newest && target.opset != target.own_opset) {
            return Err(Problem::Older { newest, reason: format!("`{name}` is of type {dtype}") });
        }
    }
    Ok(())
}

/// Sequences and optional values pass through few operators, and not from the beginning.
fn not_only_tensors(node: &Node, opset: u32, context: &Context) -> Result<(), Problem> {
    let (sequences, names) = match node.op.name() {
        "Identity" => (14, &node.inputs),
        "If" | "Loop" => (13, &node.outputs),
        _ => return Ok(()),
    };
    for name in names.iter().flatten() {
        let least = match context.known(name).other {
            Some(ValueType::Sequence(_)) => sequences,
            Some(ValueType::Optional(_)) => 16,
            Some(ValueType::Tensor(_) | ValueType::SparseTensor(_)) => continue,
            Some(ValueType::Map { .. } | ValueType::Opaque { .. }) | None => continue,
        };
        if opset < least {
            return Err(Problem::new(least, format!("`{name}` is no tensor")));
        }
    }
    Ok(())
}

fn element_type<'a>(node: &'a Node, place: Place, context: &Context) -> Option<(DType, &'a Name)> {
    let (name, stated) = match place {
        Input(position) => (node.input(position)?, None),
        Output(position) => (node.output(position)?, stated_type(&node.op)),
    };
    stated.or_else(|| context.known(name).dtype).map(|dtype| (dtype, name))
}

/// The type that attributes give to the output.
fn stated_type(op: &Op) -> Option<DType> {
    op.attributes().iter().find_map(|(name, attribute)| match (name.as_str(), attribute) {
        ("to" | "output_dtype", number) => DType::read(number),
        ("value", Attribute::Tensor(tensor)) => Some(tensor.dtype()),
        (_, _) => None,
    })
}
