//! Which rule each operator follows: one table.

use super::fact::{Call, Outputs};
use super::value::{self, Carrying};
use super::{elementwise, index, layout, normalization, product, quantized, recurrent, reduction, windows};
use crate::graph::op::Op;

/// What an operator's outputs are, and how it treats values that are known in part.
pub(super) struct Rule {
    pub(super) outputs: fn(&Call<'_>) -> Outputs,
    pub(super) carrying: Carrying,
}

fn whole(outputs: fn(&Call<'_>) -> Outputs) -> Rule {
    Rule { outputs, carrying: Carrying::Whole }
}

fn moves(outputs: fn(&Call<'_>) -> Outputs) -> Rule {
    Rule { outputs, carrying: Carrying::Moves(0) }
}

fn pairs(outputs: fn(&Call<'_>) -> Outputs, pair: fn(&value::Element, &value::Element) -> value::Element) -> Rule {
    Rule { outputs, carrying: Carrying::Pairs(pair) }
}

/// The rule of an operator; none for those that hold graphs and for opaque ones.
pub(super) fn rule(op: &Op) -> Option<Rule> {
    Some(match op {
        Op::Abs | Op::Acos | Op::Acosh | Op::Asin | Op::Asinh | Op::Atan | Op::Atanh | Op::Ceil => same_as_first(),
        Op::Celu(_) | Op::Clip | Op::Cos | Op::Cosh | Op::CumSum(_) | Op::Elu(_) | Op::Erf | Op::Exp => same_as_first(),
        Op::FastGelu | Op::Floor | Op::Gelu(_) | Op::HardSigmoid(_) | Op::HardSwish | Op::Hardmax(_) => same_as_first(),
        Op::LRN(_) | Op::LeakyRelu(_) | Op::Log | Op::LogSoftmax(_) | Op::LpNormalization(_) => same_as_first(),
        Op::Mish | Op::Neg | Op::QLinearLeakyRelu(_) | Op::QLinearSigmoid | Op::QLinearSoftmax(_) => same_as_first(),
        Op::Reciprocal | Op::Relu | Op::Round | Op::Selu(_) | Op::Sigmoid | Op::Sign | Op::Sin => same_as_first(),
        Op::Sinh | Op::Softmax(_) | Op::Softplus | Op::Softsign | Op::Sqrt | Op::Swish(_) | Op::Tan => same_as_first(),
        Op::Tanh | Op::ThresholdedRelu(_) | Op::Trilu(_) => same_as_first(),
        Op::Identity => moves(elementwise::same_as_first),
        Op::Add => pairs(elementwise::arithmetic, value::added),
        Op::Sub => pairs(elementwise::arithmetic, value::subtracted),
        Op::Mul => pairs(elementwise::arithmetic, value::multiplied),
        Op::Div => pairs(elementwise::arithmetic, value::divided),
        Op::Max | Op::Min => pairs(elementwise::arithmetic, value::same),
        Op::Mean | Op::Mod(_) | Op::Sum => whole(elementwise::arithmetic),
        Op::Pow => whole(elementwise::power),
        Op::PRelu | Op::BiasGelu => whole(elementwise::with_broadcast_second),
        Op::And | Op::Or | Op::Xor => whole(elementwise::comparison),
        Op::Greater | Op::GreaterOrEqual | Op::Less | Op::LessOrEqual => whole(elementwise::comparison),
        Op::Equal => pairs(elementwise::comparison, value::compared),
        Op::Not | Op::IsInf(_) | Op::IsNaN => whole(elementwise::test),
        Op::Where => Rule { outputs: elementwise::choice, carrying: Carrying::MovesFrom(1) },
        Op::Cast(_) => moves(elementwise::cast),
        Op::CastLike(_) => moves(elementwise::cast_like),
        Op::Dropout(_) => Rule { outputs: elementwise::dropout, carrying: Carrying::Never },

        Op::BatchNormalization(_) => whole(normalization::batch),
        Op::GroupNormalization(_) | Op::InstanceNormalization(_) => whole(normalization::by_channel),
        Op::LayerNormalization(_) => whole(normalization::layer),
        Op::RMSNormalization(_) => whole(normalization::root_mean_square),
        Op::SkipLayerNormalization(_) => whole(normalization::skip_layer),

        Op::Concat(_) => Rule { outputs: layout::concat, carrying: Carrying::MovesFrom(0) },
        Op::DepthToSpace(_) => whole(layout::depth_to_space),
        Op::Expand => moves(layout::expand),
        Op::Flatten(_) => moves(layout::flatten),
        Op::Pad(_) => whole(layout::pad),
        Op::Reshape(_) => moves(layout::reshape),
        Op::Slice => moves(layout::slice),
        Op::SpaceToDepth(_) => whole(layout::space_to_depth),
        Op::Split(_) => whole(layout::split),
        Op::Squeeze => moves(layout::squeeze),
        Op::Tile => moves(layout::tile),
        Op::Transpose(_) => moves(layout::transpose),
        Op::Unsqueeze => moves(layout::unsqueeze),

        Op::ArgMax(_) | Op::ArgMin(_) => whole(reduction::arg),
        Op::ReduceL1(_) | Op::ReduceL2(_) | Op::ReduceLogSum(_) | Op::ReduceLogSumExp(_) => whole(reduction::reduce),
        Op::ReduceMax(_) | Op::ReduceMean(_) | Op::ReduceMin(_) | Op::ReduceProd(_) => whole(reduction::reduce),
        Op::ReduceSum(_) | Op::ReduceSumSquare(_) => whole(reduction::reduce),

        Op::Constant(_) => whole(index::constant),
        Op::ConstantOfShape(_) => whole(index::constant_of_shape),
        Op::Gather(_) => moves(index::gather),
        Op::GatherElements(_) => moves(index::gather_elements),
        Op::GatherND(_) => moves(index::gather_nd),
        Op::NonZero => whole(index::non_zero),
        Op::OneHot(_) => whole(index::one_hot),
        Op::Range(_) => whole(index::range),
        Op::ScatterElements(_) | Op::ScatterND(_) => whole(index::scatter),
        Op::Shape(_) => whole(index::shape),
        Op::Size => whole(index::size),
        Op::TopK(_) => whole(index::top_k),

        Op::AveragePool(_) => whole(windows::average_pool),
        Op::Conv(_) => whole(windows::conv),
        Op::ConvInteger(_) => whole(windows::conv_integer),
        Op::ConvTranspose(_) => whole(windows::conv_transpose),
        Op::GlobalAveragePool | Op::GlobalMaxPool => whole(windows::global_pool),
        Op::MaxPool(_) => whole(windows::max_pool),
        Op::QLinearAveragePool(_) => whole(windows::qlinear_average_pool),
        Op::QLinearConv(_) => whole(windows::qlinear_conv),
        Op::QLinearGlobalAveragePool(_) => whole(windows::qlinear_global_average_pool),
        Op::Resize(_) => whole(windows::resize),

        Op::Attention(_) => whole(product::attention),
        Op::Einsum(_) => whole(product::einsum),
        Op::Gemm(_) => whole(product::gemm),
        Op::MatMul => whole(product::mat_mul),
        Op::MatMulInteger => whole(product::mat_mul_integer),
        Op::MatMulNBits(_) => whole(product::mat_mul_n_bits),
        Op::QGemm(_) => whole(product::q_gemm),
        Op::QLinearMatMul => whole(product::qlinear_mat_mul),

        Op::GRU(_) | Op::LSTM(_) | Op::RNN(_) | Op::DynamicQuantizeLSTM(_) => whole(recurrent::recurrent),

        Op::DequantizeLinear(_) => whole(quantized::dequantize),
        Op::DynamicQuantizeLinear => whole(quantized::dynamic_quantize),
        Op::QuantizeLinear(_) => whole(quantized::quantize),
        Op::QLinearAdd | Op::QLinearMul => whole(quantized::arithmetic),
        Op::QLinearConcat(_) => whole(quantized::concat),

        Op::If(_) | Op::Loop(_) | Op::Scan(_) | Op::Opaque(_) => return None,
    })
}

fn same_as_first() -> Rule {
    whole(elementwise::same_as_first)
}
