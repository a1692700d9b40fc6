//! Kinds of operators, as far as an audit tells them apart.

use serde::Serialize;

use crate::graph::op::Op;
use crate::graph::tensor::DType;
use crate::measure::runtime::explain::RunNode;

/// From float to integers by a scale.
pub(super) fn is_quantize(op: &Op) -> bool {
    matches!(op, Op::QuantizeLinear(_) | Op::DynamicQuantizeLinear)
}

/// From integers by a scale to float.
pub(super) fn is_dequantize(op: &Op) -> bool {
    matches!(op, Op::DequantizeLinear(_))
}

/// Between float and integers, either way.
pub(super) fn converts(op: &Op) -> bool {
    is_quantize(op) || is_dequantize(op)
}

/// Operators that a quantizing one takes into itself when it stands right behind another.
pub(super) fn is_clamp(op: &Op) -> bool {
    matches!(op, Op::Relu | Op::Clip)
}

/// Operators on integers by their own definition, not by Q/DQ around them.
pub(super) fn is_integer_operator(op: &Op) -> bool {
    names_integer_arithmetic(op.name())
}

/// Products with weights, where nearly all of a network's work is.
pub(super) fn multiplies(op: &Op) -> bool {
    const PRODUCTS: [&str; 9] = ["Conv", "ConvTranspose", "Gemm", "MatMul", "QGemm", "LSTM", "GRU", "RNN", "Attention"];
    let name = op.name().strip_prefix("QLinear").unwrap_or(op.name());
    PRODUCTS.contains(&name) || name.starts_with("MatMulInteger") || name == "ConvInteger" || name == "MatMulNBits"
}

/// Operators whose integer results are rounded numbers, so that the last step may differ.
pub(super) fn rounds_to_steps(op: &Op) -> bool {
    is_quantize(op) || op.name().starts_with("QLinear") || op.name() == "QGemm"
}

/// Operators that move, select or name elements and compute nothing with them.
pub(super) fn only_moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Cast(_)
            | Op::CastLike(_)
            | Op::Concat(_)
            | Op::Constant(_)
            | Op::ConstantOfShape(_)
            | Op::DepthToSpace(_)
            | Op::Dropout(_)
            | Op::Expand
            | Op::Flatten(_)
            | Op::Gather(_)
            | Op::GatherElements(_)
            | Op::GatherND(_)
            | Op::Identity
            | Op::Pad(_)
            | Op::Range(_)
            | Op::Reshape(_)
            | Op::Shape(_)
            | Op::Size
            | Op::Slice
            | Op::SpaceToDepth(_)
            | Op::Split(_)
            | Op::Squeeze
            | Op::Tile
            | Op::Transpose(_)
            | Op::Unsqueeze
    )
}

/// In what a node of a runtime's graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Integers of 8 bits and fewer, whatever they are summed in.
    Int8,
    /// Floats.
    Float,
    /// From one to the other: QuantizeLinear, DequantizeLinear, Cast.
    Conversion,
    /// Anything else: wider integers, booleans, strings, what the runtime does not say.
    Other,
}

/// What a node of a runtime's graph computes in: by its operator where that says so, else by its first typed input.
pub(super) fn arithmetic(node: &RunNode) -> Arithmetic {
    let operator = node.operator.as_str();
    if ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"]
        .iter()
        .any(|name| operator.starts_with(name))
    {
        return Arithmetic::Conversion;
    }
    if names_integer_arithmetic(operator) {
        return Arithmetic::Int8;
    }
    match node.inputs.iter().find_map(|fact| fact.dtype) {
        Some(DType::I8 | DType::U8 | DType::I4 | DType::U4 | DType::I2 | DType::U2) => Arithmetic::Int8,
        Some(dtype) if dtype.is_float() => Arithmetic::Float,
        Some(_) | None => Arithmetic::Other,
    }
}

fn names_integer_arithmetic(operator: &str) -> bool {
    operator.starts_with("QLinear")
        || operator.contains("Integer")
        || ["QGemm", "QAttention", "QOrderedMatMul", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"].contains(&operator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::runtime::explain::Fact;

    #[test]
    fn a_node_is_told_by_its_operator_or_its_first_typed_input() {
        let check = |operator: &str, inputs: &[Option<DType>]| {
            let inputs = inputs.iter().map(|&dtype| Fact { dtype, shape: vec![] }).collect();
            let operator = operator.to_owned();
            arithmetic(&RunNode { name: String::new(), operator, inputs, outputs: vec![], times_us: vec![] })
        };
        assert_eq!(check("QLinearConv", &[Some(DType::U8), Some(DType::F32)]), Arithmetic::Int8);
        assert_eq!(check("DynamicQuantizeMatMul", &[Some(DType::F32)]), Arithmetic::Int8);
        assert_eq!(check("MatMulIntegerToFloat", &[Some(DType::U8)]), Arithmetic::Int8);
        assert_eq!(check("MaxPool", &[Some(DType::U8)]), Arithmetic::Int8);
        assert_eq!(check("FusedConv", &[Some(DType::F32)]), Arithmetic::Float);
        assert_eq!(check("QuantizeLinear", &[Some(DType::F32)]), Arithmetic::Conversion);
        assert_eq!(check("DequantizeLinearF32", &[Some(DType::U8)]), Arithmetic::Conversion);
        assert_eq!(check("LookupTable", &[Some(DType::U8)]), Arithmetic::Int8);
        assert_eq!(check("OptMatMul", &[None, Some(DType::F32)]), Arithmetic::Float);
        assert_eq!(check("Gather", &[Some(DType::I64), Some(DType::I64)]), Arithmetic::Other);
        assert_eq!(check("Random", &[]), Arithmetic::Other);
    }
}
