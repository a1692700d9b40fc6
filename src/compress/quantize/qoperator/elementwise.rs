//! Sums, products, functions, averages and concatenations on integers: operators of onnxruntime's own.

use super::Replacement;
use super::view::{Quantized, View, expect_one_type, renewed};
use crate::graph::op::{self, Op};
use crate::graph::patch::Patch;
use crate::graph::{Name, Node};

/// The opset from which `axis` of a `Softmax` means one axis, as it does in our form.
const SOFTMAX_OF_ONE_AXIS: i64 = 13;

pub(super) fn lower(view: &View<'_>, patch: &mut Patch, node: &Node) -> Result<Replacement, String> {
    let op = on_integers(&node.op)?;
    view.expect_microsoft(op.name())?;
    let n_operands = if matches!(op, Op::QLinearAdd | Op::QLinearMul) { 2 } else { 1 };
    let operands = (0..n_operands).map(|position| view.input(node, position)).collect::<Result<Vec<_>, _>>()?;
    let target = view.target(node.output(0).ok_or("it gives nothing")?, true)?;
    expect_one_type(&operands.iter().chain([&target.to]).collect::<Vec<_>>())?;
    let mut inputs = all_operands(&operands, patch)?;
    inputs.extend([target.to.scale.clone(), target.to.zero_point_name(patch)?]);
    Ok(Replacement { node: renewed(node, op, inputs, target.to.name), absorbed: target.absorbed })
}

/// `QLinearConcat`, whose output's scale and zero point come first.
pub(super) fn concat(view: &View<'_>, patch: &mut Patch, node: &Node, op: &op::Concat) -> Result<Replacement, String> {
    view.expect_microsoft("QLinearConcat")?;
    let parts = (0..node.inputs.len()).map(|position| view.input(node, position)).collect::<Result<Vec<_>, _>>()?;
    let target = view.target(node.output(0).ok_or("it gives nothing")?, true)?;
    expect_one_type(&parts.iter().chain([&target.to]).collect::<Vec<_>>())?;
    let mut inputs = vec![target.to.scale.clone(), target.to.zero_point_name(patch)?];
    inputs.extend(all_operands(&parts, patch)?);
    let op = Op::QLinearConcat(op::QLinearConcat { axis: op.axis });
    Ok(Replacement { node: renewed(node, op, inputs, target.to.name), absorbed: target.absorbed })
}

fn all_operands(operands: &[Quantized<'_>], patch: &mut Patch) -> Result<Vec<Name>, String> {
    let mut inputs = Vec::with_capacity(3 * operands.len() + 2);
    for operand in operands {
        inputs.extend(operand.operands(patch)?);
    }
    Ok(inputs)
}

fn on_integers(op: &Op) -> Result<Op, String> {
    Ok(match op {
        Op::Add => Op::QLinearAdd,
        Op::Mul => Op::QLinearMul,
        Op::Sigmoid => Op::QLinearSigmoid,
        Op::LeakyRelu(leaky) => Op::QLinearLeakyRelu(op::QLinearLeakyRelu { alpha: leaky.alpha }),
        Op::Softmax(softmax) => {
            Op::QLinearSoftmax(op::QLinearSoftmax { axis: softmax.axis, opset: SOFTMAX_OF_ONE_AXIS })
        }
        Op::GlobalAveragePool => Op::QLinearGlobalAveragePool(op::QLinearGlobalAveragePool { channels_last: false }),
        Op::AveragePool(pool) if pool.dilations.iter().all(|&dilation| dilation == 1) => {
            Op::QLinearAveragePool(op::QLinearAveragePool {
                auto_pad: pool.auto_pad,
                ceil_mode: pool.ceil_mode,
                channels_last: false,
                count_include_pad: pool.count_include_pad,
                kernel_shape: pool.kernel_shape.clone(),
                pads: pool.pads.clone(),
                strides: pool.strides.clone(),
            })
        }
        Op::AveragePool(_) => return Err("an average of dilated windows has no form on integers".to_string()),
        other => return Err(format!("{} has no form on integers", other.name())),
    })
}
