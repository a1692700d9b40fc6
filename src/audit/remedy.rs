//! What to do about an operator that goes wrong, where that is known.

use super::kind;
use crate::graph::tensor::DType;
use crate::graph::{Node, Op};
use crate::measure::machine::Machine;
use crate::measure::runtime::{ort as onnxruntime, tract};

/// What stands around an operator that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// Between DequantizeLinear and QuantizeLinear, or beside one of them.
    pub(super) is_quantized: bool,
    /// Constants come to it through DequantizeLinear.
    pub(super) has_quantized_constants: bool,
    /// Whether it is right without what is beside it.
    pub(super) right_alone: Option<bool>,
}

/// One sentence for the reader.
pub(super) fn remedy(runtime: &str, node: &Node, surroundings: Surroundings) -> String {
    let Surroundings { is_quantized, has_quantized_constants, right_alone } = surroundings;
    let operator = node.op.name();
    if runtime == tract::NAME && is_quantized && matches!(node.op, Op::Softmax(_) | Op::LogSoftmax(_)) {
        return format!(
            "tract makes a table of single elements of {operator} between DequantizeLinear and QuantizeLinear, though it \
             needs the whole axis: leave {operator} in float when quantizing for tract"
        );
    }
    let is_quantized_product = kind::multiplies(&node.op) && (is_quantized || kind::is_integer_operator(&node.op));
    if runtime == onnxruntime::NAME && is_quantized_product && saturates() {
        return format!(
            "this processor has no VNNI: sums of {} by {} saturate at 16 bits; quantize weights to 7 bits, or to u8",
            DType::U8,
            DType::I8
        );
    }
    if runtime == onnxruntime::NAME && matches!(node.op, Op::MatMul) && has_quantized_constants && !is_quantized {
        return "onnxruntime makes a MatMulNBits of it, which rounds the other input to int8 as well: keep it from fusing Q/DQ \
                (session.disable_quant_qdq=1; `--no-fuse-quantization` here)"
            .to_owned();
    }
    if is_quantized && right_alone == Some(true) {
        return format!("leave {operator} in float when quantizing for {runtime}, and report it to {runtime}");
    }
    format!("run this model on another runtime, and report it to {runtime}")
}

/// Whether products of u8 and s8 are summed in 16 bits on this machine.
fn saturates() -> bool {
    let machine = Machine::this();
    machine.arch == "x86_64"
        && !machine.features.iter().any(|feature| feature == "avx512_vnni" || feature == "avx_vnni")
}
