//! How each operator takes 16-bit floats, by ONNX's definitions: one table.

use super::HalfType;
use crate::graph::op::Op;

/// How an operator takes a narrow float type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It computes in the type of its float inputs and outputs, but for some positions.
    Computes {
        /// Inputs that stay `f32`.
        wide: &'static [usize],
        /// Inputs that may have any type, whatever the outputs have.
        any: &'static [usize],
        /// Outputs that stay `f32`.
        wide_outputs: &'static [usize],
    },
    /// It computes on integers; its floats are scales.
    Integers,
    /// It stays in `f32`, for this reason.
    Stays(&'static str),
}

const ALL: Role = Role::Computes { wide: &[], any: &[], wide_outputs: &[] };
const OF_ANY: Role = Role::Computes { wide: &[], any: &[0], wide_outputs: &[] };

const fn with_wide(wide: &'static [usize], wide_outputs: &'static [usize]) -> Role {
    Role::Computes { wide, any: &[], wide_outputs }
}

/// The role of an operator.
pub(super) fn role(op: &Op, to: HalfType) -> Role {
    if to == HalfType::BF16 && matches!(op, Op::Einsum(_) | Op::OneHot(_) | Op::SkipLayerNormalization(_)) {
        return Role::Stays("the operator is not defined for bf16");
    }
    match op {
        Op::Abs | Op::Acos | Op::Acosh | Op::Add | Op::And | Op::ArgMax(_) | Op::ArgMin(_) | Op::Asin => ALL,
        Op::Asinh | Op::Atan | Op::Atanh | Op::Attention(_) | Op::AveragePool(_) | Op::BiasGelu | Op::Ceil => ALL,
        Op::Clip | Op::Concat(_) | Op::Constant(_) | Op::ConstantOfShape(_) | Op::Conv(_) => ALL,
        Op::ConvTranspose(_) | Op::Cos | Op::Cosh | Op::CumSum(_) | Op::DepthToSpace(_) | Op::Div => ALL,
        Op::Einsum(_) | Op::Elu(_) | Op::Equal | Op::Erf | Op::Exp | Op::Expand | Op::FastGelu => ALL,
        Op::Flatten(_) | Op::Floor | Op::GRU(_) | Op::Gather(_) | Op::GatherElements(_) | Op::GatherND(_) => ALL,
        Op::Gelu(_) | Op::Gemm(_) | Op::GlobalAveragePool | Op::GlobalMaxPool | Op::Greater => ALL,
        Op::GreaterOrEqual | Op::GroupNormalization(_) | Op::HardSigmoid(_) | Op::HardSwish | Op::Hardmax(_) => ALL,
        Op::Identity | Op::InstanceNormalization(_) | Op::IsInf(_) | Op::IsNaN | Op::LRN(_) | Op::LSTM(_) => ALL,
        Op::LeakyRelu(_) | Op::Less | Op::LessOrEqual | Op::Log | Op::LogSoftmax(_) | Op::LpNormalization(_) => ALL,
        Op::MatMul | Op::MatMulNBits(_) | Op::Max | Op::MaxPool(_) | Op::Mean | Op::Min | Op::Mish => ALL,
        Op::Mod(_) | Op::Mul | Op::Neg | Op::NonZero | Op::Not | Op::OneHot(_) | Op::Or | Op::PRelu => ALL,
        Op::Pad(_) | Op::Pow | Op::RMSNormalization(_) | Op::RNN(_) | Op::Reciprocal | Op::ReduceL1(_) => ALL,
        Op::ReduceL2(_) | Op::ReduceLogSum(_) | Op::ReduceLogSumExp(_) | Op::ReduceMax(_) => ALL,
        Op::ReduceMean(_) | Op::ReduceMin(_) | Op::ReduceProd(_) | Op::ReduceSum(_) => ALL,
        Op::ReduceSumSquare(_) | Op::Relu | Op::Reshape(_) | Op::Round | Op::ScatterElements(_) => ALL,
        Op::ScatterND(_) | Op::Selu(_) | Op::Sigmoid | Op::Sign | Op::Sin | Op::Sinh | Op::Slice => ALL,
        Op::Softmax(_) | Op::Softplus | Op::Softsign | Op::SpaceToDepth(_) | Op::Split(_) | Op::Sqrt => ALL,
        Op::Squeeze | Op::Sub | Op::Sum | Op::Swish(_) | Op::Tan | Op::Tanh | Op::ThresholdedRelu(_) => ALL,
        Op::Tile | Op::TopK(_) | Op::Transpose(_) | Op::Trilu(_) | Op::Unsqueeze | Op::Where | Op::Xor => ALL,

        Op::Cast(_) | Op::CastLike(_) | Op::Shape(_) | Op::Size => OF_ANY,
        Op::BatchNormalization(_) => with_wide(&[1, 2, 3, 4], &[1, 2]),
        Op::Dropout(_) => with_wide(&[1], &[]),
        Op::LayerNormalization(_) | Op::SkipLayerNormalization(_) => with_wide(&[], &[1, 2]),
        Op::Resize(_) => with_wide(&[1, 2], &[]),

        Op::ConvInteger(_) | Op::MatMulInteger | Op::QGemm(_) | Op::QLinearAdd | Op::QLinearAveragePool(_) => {
            Role::Integers
        }
        Op::QLinearConcat(_) | Op::QLinearConv(_) | Op::QLinearGlobalAveragePool(_) | Op::QLinearLeakyRelu(_) => {
            Role::Integers
        }
        Op::QLinearMatMul | Op::QLinearMul | Op::QLinearSigmoid | Op::QLinearSoftmax(_) => Role::Integers,

        Op::Celu(_) | Op::DynamicQuantizeLSTM(_) | Op::DynamicQuantizeLinear => {
            Role::Stays("the operator is defined for f32 only")
        }
        Op::Range(_) => Role::Stays("its numbers count: halves do so exactly only up to 2048, bf16 up to 256"),
        Op::DequantizeLinear(_) | Op::QuantizeLinear(_) => Role::Stays("its scales are f32"),
        Op::If(_) | Op::Loop(_) | Op::Scan(_) => Role::Stays("branches and bodies compute in f32"),
        Op::Opaque(_) => Role::Stays("the operator is not known"),
    }
}

/// The first version of ONNX's operator set in which the operator takes the narrow type as [`role`] has it, where that
/// is later than what the type itself needs.
pub(super) fn least_opset(op: &Op, to: HalfType) -> u32 {
    let by_form = match op {
        Op::BatchNormalization(_) => 15,
        Op::CumSum(_) => 14,
        Op::IsInf(_) => 20,
        _ => 7,
    };
    if to == HalfType::F16 {
        return by_form;
    }
    let late = match op {
        Op::Acos | Op::Acosh | Op::Asin | Op::Asinh | Op::Atan | Op::Atanh | Op::Cos | Op::Cosh | Op::Sin => 22,
        Op::Sinh | Op::Tan | Op::Softplus | Op::Softsign | Op::Round | Op::Selu(_) | Op::Elu(_) | Op::Mish => 22,
        Op::AveragePool(_) | Op::GlobalAveragePool | Op::GlobalMaxPool | Op::MaxPool(_) | Op::Conv(_) => 22,
        Op::ConvTranspose(_) | Op::HardSigmoid(_) | Op::HardSwish | Op::InstanceNormalization(_) => 22,
        Op::LpNormalization(_) | Op::ThresholdedRelu(_) | Op::GRU(_) | Op::LSTM(_) | Op::RNN(_) => 22,
        Op::TopK(_) => 24,
        Op::ConstantOfShape(_) => 20,
        Op::LeakyRelu(_) | Op::PRelu | Op::Where => 16,
        _ => 13,
    };
    by_form.max(late)
}
