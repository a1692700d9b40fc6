//! Which rule each operator follows: one table.

use super::{Facts, Port, attention, elementwise, index, layout, norm, product, recurrent};
use crate::graph::op::Op;

pub(super) fn apply(facts: &mut Facts<'_>) {
    let node = facts.node;
    if facts.has_unknown_rank() {
        return facts.pin_all("its shapes are not known");
    }
    match &node.op {
        Op::Abs | Op::Acos | Op::Acosh | Op::Asin | Op::Asinh | Op::Atan | Op::Atanh => elementwise::unary(facts),
        Op::Cast(_) | Op::CastLike(_) | Op::Ceil | Op::Celu(_) | Op::Clip | Op::Cos => elementwise::unary(facts),
        Op::Cosh | Op::Elu(_) | Op::Erf | Op::Exp | Op::Floor | Op::Gelu(_) => elementwise::unary(facts),
        Op::HardSigmoid(_) | Op::HardSwish | Op::Identity | Op::IsInf(_) | Op::IsNaN => elementwise::unary(facts),
        Op::LeakyRelu(_) | Op::Log | Op::Mish | Op::Neg | Op::Not | Op::Reciprocal => elementwise::unary(facts),
        Op::Relu | Op::Round | Op::Selu(_) | Op::Sigmoid | Op::Sign | Op::Sin | Op::Sinh => elementwise::unary(facts),
        Op::Softplus | Op::Softsign | Op::Sqrt | Op::Swish(_) | Op::Tan => elementwise::unary(facts),
        Op::Tanh | Op::ThresholdedRelu(_) => elementwise::unary(facts),
        Op::QLinearLeakyRelu(_) | Op::QLinearSigmoid => elementwise::unary(facts),
        Op::Dropout(_) => elementwise::dropout(facts),
        Op::Add | Op::And | Op::BiasGelu | Op::Div | Op::Equal => elementwise::broadcast(facts),
        Op::FastGelu | Op::Greater | Op::GreaterOrEqual => elementwise::broadcast(facts),
        Op::Less | Op::LessOrEqual | Op::Max | Op::Mean | Op::Min | Op::Mod(_) | Op::Mul => {
            elementwise::broadcast(facts);
        }
        Op::Or | Op::PRelu | Op::Pow | Op::Sub | Op::Sum | Op::Where | Op::Xor => elementwise::broadcast(facts),
        Op::QLinearAdd | Op::QLinearMul => elementwise::broadcast_of(facts, &[0, 3]),
        Op::QuantizeLinear(attributes) => elementwise::scaled(facts, attributes.axis, attributes.block_size),
        Op::DequantizeLinear(attributes) => elementwise::scaled(facts, attributes.axis, attributes.block_size),
        Op::DynamicQuantizeLinear => norm::dynamic_quantize(facts),

        Op::Conv(attributes) => product::conv(facts, attributes.group, product::CONV),
        Op::ConvInteger(attributes) => product::conv(facts, attributes.group, product::CONV_INTEGER),
        Op::QLinearConv(attributes) => product::conv(facts, attributes.group, product::QLINEAR_CONV),
        Op::ConvTranspose(attributes) => product::conv_transpose(facts, attributes.group),
        Op::Gemm(attributes) => product::gemm(facts, attributes.trans_a, attributes.trans_b),
        Op::MatMul => product::matmul(facts, product::MATMUL),
        Op::MatMulInteger => product::matmul(facts, product::MATMUL_INTEGER),
        Op::QLinearMatMul => product::matmul(facts, product::QLINEAR_MATMUL),
        Op::Einsum(attributes) => product::einsum(facts, &attributes.equation),

        Op::BatchNormalization(attributes) => norm::batch(facts, attributes.training_mode),
        Op::InstanceNormalization(_) => norm::instance(facts),
        Op::GroupNormalization(attributes) => norm::group(facts, attributes.num_groups),
        Op::LayerNormalization(attributes) | Op::RMSNormalization(attributes) => norm::layer(facts, attributes.axis),
        Op::SkipLayerNormalization(_) => norm::skip_layer(facts),
        Op::LpNormalization(attributes) => norm::along(facts, attributes.axis),
        Op::Softmax(attributes) | Op::LogSoftmax(attributes) => norm::along(facts, attributes.axis),
        Op::QLinearSoftmax(attributes) if attributes.opset >= 13 => norm::along(facts, attributes.axis),
        Op::LRN(_) => norm::local_response(facts),

        Op::AveragePool(_) | Op::GlobalAveragePool | Op::GlobalMaxPool => layout::pool(facts),
        Op::MaxPool(_) => layout::pool(facts),
        Op::QLinearAveragePool(attributes) => layout::quantized_pool(facts, attributes.channels_last),
        Op::QLinearGlobalAveragePool(attributes) => layout::quantized_pool(facts, attributes.channels_last),
        Op::Concat(attributes) => layout::concat(facts, attributes.axis),
        Op::DepthToSpace(attributes) => layout::depth_to_space(facts, attributes),
        Op::SpaceToDepth(attributes) => layout::space_to_depth(facts, attributes),
        Op::Expand => layout::expand(facts),
        Op::Flatten(attributes) => layout::flatten(facts, attributes.axis),
        Op::Pad(attributes) => layout::pad(facts, attributes.mode),
        Op::Reshape(_) => layout::reshape(facts),
        Op::Resize(attributes) => layout::resize(facts, attributes),
        Op::Slice => layout::slice(facts),
        Op::Split(attributes) => layout::split(facts, attributes.axis),
        Op::Squeeze | Op::Unsqueeze => layout::squeeze(facts),
        Op::Tile => layout::tile(facts),
        Op::Transpose(attributes) => layout::transpose(facts, &attributes.perm),

        Op::ReduceL1(attributes) | Op::ReduceL2(attributes) => norm::reduce(facts, attributes),
        Op::ReduceLogSum(attributes) | Op::ReduceLogSumExp(attributes) => norm::reduce(facts, attributes),
        Op::ReduceMax(attributes) | Op::ReduceMean(attributes) => norm::reduce(facts, attributes),
        Op::ReduceMin(attributes) | Op::ReduceProd(attributes) => norm::reduce(facts, attributes),
        Op::ReduceSum(attributes) | Op::ReduceSumSquare(attributes) => norm::reduce(facts, attributes),
        Op::ArgMax(attributes) | Op::ArgMin(attributes) => index::arg(facts, attributes.axis, attributes.keepdims),
        Op::CumSum(_) => index::cumulative(facts),
        Op::Hardmax(attributes) => index::ordered(facts, attributes.axis),
        Op::TopK(attributes) => index::ordered(facts, attributes.axis),
        Op::Gather(attributes) => index::gather(facts, attributes.axis),
        Op::GatherElements(attributes) => index::gather_elements(facts, attributes.axis),
        Op::GatherND(_) | Op::ScatterElements(_) | Op::ScatterND(_) => {
            facts.pin_all("it picks slices by their index");
        }
        Op::OneHot(_) | Op::NonZero | Op::Range(_) | Op::Trilu(_) => facts.pin_all("it counts with the index"),

        Op::RNN(attributes) => recurrent::layer(facts, 1, attributes.layout),
        Op::GRU(attributes) => recurrent::layer(facts, 3, attributes.layout),
        Op::LSTM(attributes) => recurrent::layer(facts, 4, attributes.layout),
        Op::Attention(attributes) => attention::heads(facts, attributes),

        // Their outputs are new; what they read of an input is its shape or a number.
        Op::Constant(_) | Op::ConstantOfShape(_) | Op::Size => {}
        Op::Shape(_) => facts.pin_value(Port::Output(0), "it spells a shape"),

        Op::QLinearSoftmax(_) | Op::QLinearConcat(_) | Op::QGemm(_) => facts.pin_all(UNCOVERED),
        Op::DynamicQuantizeLSTM(_) | Op::MatMulNBits(_) => facts.pin_all(UNCOVERED),
        Op::If(_) | Op::Loop(_) | Op::Scan(_) => facts.pin_all("its bodies are not taken apart"),
        Op::Opaque(_) => facts.pin_all("the operator is not known"),
    }
}

const UNCOVERED: &str = "the operator is not covered";
