//! `Conv`, `MatMul` and `Gemm` on integers.

use super::Replacement;
use super::view::{Quantized, View, expect_one_type, renewed};
use crate::graph::op::{self, Op};
use crate::graph::patch::Patch;
use crate::graph::tensor::DType;
use crate::graph::{Name, Node};

/// How far, relatively, the scale of a bias may be from the product of the others'.
const ROUNDING: f64 = 1e-5;

/// `QLinearConv`
pub(super) fn conv(view: &View<'_>, patch: &mut Patch, node: &Node, op: &op::Conv) -> Result<Replacement, String> {
    let (x, w) = (view.input(node, 0)?, view.input(node, 1)?);
    let target = view.target(node.output(0).ok_or("it gives nothing")?, true)?;
    expect_one_type(&[&x, &target.to])?;
    expect_weight(&x, &w)?;
    let rank = view.rank(w.name).ok_or_else(|| format!("the rank of `{}` is not known", w.name))?;
    expect_along(&w, 0, rank)?;
    let bias = match node.input(2) {
        Some(bias) => Some(bias_of(view, bias, &x, &w, [1.0, 1.0])?),
        None => None,
    };
    let mut inputs: Vec<Name> = x.operands(patch)?.into_iter().chain(w.operands(patch)?).collect();
    inputs.extend([target.to.scale.clone(), target.to.zero_point_name(patch)?]);
    inputs.extend(bias);
    Ok(Replacement {
        node: renewed(node, Op::QLinearConv(op.clone()), inputs, target.to.name),
        absorbed: target.absorbed,
    })
}

/// `QLinearMatMul`
pub(super) fn mat_mul(view: &View<'_>, patch: &mut Patch, node: &Node) -> Result<Replacement, String> {
    let (a, b) = (view.input(node, 0)?, view.input(node, 1)?);
    let target = view.target(node.output(0).ok_or("it gives nothing")?, true)?;
    expect_one_type(&[&a, &target.to])?;
    expect_weight(&a, &b)?;
    if !b.is_whole() {
        if view.rank(b.name) != Some(2) {
            return Err(format!("`{}` has a scale for each column and is no matrix", b.name));
        }
        expect_along(&b, 1, 2)?;
    }
    let mut inputs: Vec<Name> = a.operands(patch)?.into_iter().chain(b.operands(patch)?).collect();
    inputs.extend([target.to.scale.clone(), target.to.zero_point_name(patch)?]);
    Ok(Replacement { node: renewed(node, Op::QLinearMatMul, inputs, target.to.name), absorbed: target.absorbed })
}

/// `QGemm`
pub(super) fn gemm(view: &View<'_>, patch: &mut Patch, node: &Node, op: &op::Gemm) -> Result<Replacement, String> {
    view.expect_microsoft("QGemm")?;
    let (a, b) = (view.input(node, 0)?, view.input(node, 1)?);
    let target = view.target(node.output(0).ok_or("it gives nothing")?, true)?;
    expect_one_type(&[&a, &target.to])?;
    expect_weight(&a, &b)?;
    expect_along(&b, usize::from(!op.trans_b), 2)?;
    let bias = match node.input(2) {
        Some(bias) => Some(bias_of(view, bias, &a, &b, [op.alpha, op.beta])?),
        None => None,
    };
    let mut inputs: Vec<Option<Name>> = a.operands(patch)?.into_iter().chain(b.operands(patch)?).map(Some).collect();
    inputs.push(bias);
    inputs.extend([target.to.scale.clone(), target.to.zero_point_name(patch)?].map(Some));
    let on_integers = op::QGemm { alpha: op.alpha, trans_a: op.trans_a, trans_b: op.trans_b };
    let mut node = renewed(node, Op::QGemm(on_integers), Vec::new(), target.to.name);
    node.inputs = inputs;
    Ok(Replacement { node, absorbed: target.absorbed })
}

/// The second factor is of 8 bits, too; no runtime has unsigned weights to signed activations.
fn expect_weight(x: &Quantized<'_>, w: &Quantized<'_>) -> Result<(), String> {
    match (x.dtype, w.dtype) {
        (_, DType::I8) | (DType::U8, DType::U8) => {}
        _ => return Err(format!("`{}` is {} and `{}` is {}", x.name, x.dtype, w.name, w.dtype)),
    }
    match w.one_zero_point() {
        Some(_) => Ok(()),
        None => Err(format!("the zero points of `{}` differ between channels", w.name)),
    }
}

fn expect_along(w: &Quantized<'_>, axis: usize, rank: usize) -> Result<(), String> {
    if w.is_along(axis, rank) {
        return Ok(());
    }
    Err(format!("the scales of `{}` do not stand along axis {axis}", w.name))
}

/// The integers of a bias, which operators take to have the scale of the product: `beta · scale = alpha · x · w`.
fn bias_of(
    view: &View<'_>,
    name: &Name,
    x: &Quantized<'_>,
    w: &Quantized<'_>,
    [alpha, beta]: [f32; 2],
) -> Result<Name, String> {
    let producer = view.uses.producer(name).filter(|node| matches!(node.op, Op::DequantizeLinear(_)));
    let own =
        producer.and_then(|node| node.output(0)).ok_or_else(|| format!("the bias `{name}` is no quantized one"))?;
    let bias = view.dequantized(own)?;
    if bias.dtype != DType::I32 || bias.one_zero_point() != Some(0) {
        return Err(format!("the bias `{}` is {} or has a zero point other than 0", bias.name, bias.dtype));
    }
    if !bias.is_whole() && view.rank(bias.name) != Some(1) {
        return Err(format!("the bias `{}` has several scales and more than one dimension", bias.name));
    }
    let n_scales = bias.scales.len().max(w.scales.len());
    let pick =
        |scales: &[f32], idx: usize| scales.get(idx).or(scales.first()).copied().map(f64::from).unwrap_or(f64::NAN);
    let fits = |idx: usize| {
        let product = f64::from(alpha) * pick(&x.scales, 0) * pick(&w.scales, idx);
        (f64::from(beta) * pick(&bias.scales, idx) - product).abs() <= ROUNDING * product.abs()
    };
    if bias.scales.len() > 1 && bias.scales.len() < n_scales {
        return Err(format!(
            "the bias `{}` has {} scales, the weight {}",
            bias.name,
            bias.scales.len(),
            w.scales.len()
        ));
    }
    match (0..n_scales).find(|&idx| !fits(idx)) {
        Some(idx) => Err(format!("the scale {idx} of the bias `{}` is not the product of the others", bias.name)),
        None => Ok(bias.name.clone()),
    }
}
