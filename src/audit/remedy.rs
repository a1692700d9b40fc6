//! What to do about an operator that goes wrong, where that is known.

use super::kind;
use crate::graph::tensor::DType;
use crate::graph::{Node, Op};
use crate::measure::machine::Machine;
use crate::measure::runtime::{ort, tract};

/// One sentence for the reader.
pub(super) fn remedy(runtime: &str, node: &Node, is_quantized: bool, right_alone: Option<bool>) -> String {
    let operator = node.op.name();
    if runtime == tract::NAME && is_quantized && matches!(node.op, Op::Softmax(_) | Op::LogSoftmax(_)) {
        return format!(
            "tract makes a table of single elements of {operator} between DequantizeLinear and QuantizeLinear, though it \
             needs the whole axis: leave {operator} in float when quantizing for tract"
        );
    }
    let is_quantized_product = kind::multiplies(&node.op) && (is_quantized || kind::is_integer_operator(&node.op));
    if runtime == ort::NAME && is_quantized_product && saturates() {
        return format!(
            "this processor has no VNNI: sums of {} by {} saturate at 16 bits; quantize weights to 7 bits, or to u8",
            DType::U8,
            DType::I8
        );
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
