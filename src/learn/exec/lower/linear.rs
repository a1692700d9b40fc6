//! Products of matrices and convolutions.

use super::{Lowered, Lowering};
use crate::graph::Op;
use crate::graph::op::{Conv, ConvTranspose, Gemm};
use crate::graph::window::{Window, WindowError, conv_axes, conv_transpose_axes};
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{ConvWindow, Id};

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    Ok(Some(vec![match op {
        Op::MatMul => matmul(lowering)?,
        Op::Gemm(gemm) => self::gemm(lowering, gemm)?,
        Op::Conv(conv) => convolution(lowering, conv)?,
        Op::ConvTranspose(conv) => transposed_convolution(lowering, conv)?,
        _ => return Ok(None),
    }]))
}

/// `MatMul`: vectors become matrices, and leading axes of `a` are rows where `b` is one matrix.
fn matmul(lowering: &mut Lowering<'_, '_>) -> Result<Id, ExecError> {
    let [mut a, mut b] = [lowering.input(0)?, lowering.input(1)?];
    let shape = lowering.shape(0)?;
    let emit = lowering.emit();
    if emit.rank(a) == 1 {
        let n = emit.shape(a)[0];
        a = emit.reshape(a, &[1, n]);
    }
    if emit.rank(b) == 1 {
        let n = emit.shape(b)[0];
        b = emit.reshape(b, &[n, 1]);
    }
    if emit.rank(b) == 2 && emit.rank(a) > 2 {
        let a_shape = emit.shape(a);
        let (n_rows, n_columns) = (a_shape[..a_shape.len() - 1].iter().product(), a_shape[a_shape.len() - 1]);
        a = emit.reshape(a, &[n_rows, n_columns]);
    }
    let y = emit.matmul(a, b, false, false);
    Ok(emit.reshape(y, &shape))
}

/// `Gemm`: `alpha · a b + beta · c`.
fn gemm(lowering: &mut Lowering<'_, '_>, gemm: &Gemm) -> Result<Id, ExecError> {
    let [a, b] = [lowering.input(0)?, lowering.input(1)?];
    let c = lowering.optional(2)?;
    let emit = lowering.emit();
    let n_columns = emit.shape(b)[usize::from(!gemm.trans_b)];
    let is_plain = gemm.alpha == 1.0 && gemm.beta == 1.0 && !gemm.trans_a;
    if let Some(bias) = c.filter(|&bias| is_plain && *emit.shape(bias) == [n_columns]) {
        return Ok(emit.linear(a, b, bias, gemm.trans_b, false));
    }
    let product = emit.matmul(a, b, gemm.trans_a, gemm.trans_b);
    let product = emit.affine(product, gemm.alpha.into(), 0.0);
    Ok(match c {
        Some(c) => {
            let c = emit.affine(c, gemm.beta.into(), 0.0);
            emit.add(product, c)
        }
        None => product,
    })
}

/// `Conv`
fn convolution(lowering: &mut Lowering<'_, '_>, conv: &Conv) -> Result<Id, ExecError> {
    let inputs = lowering.inputs()?;
    let shape = lowering.shape(0)?;
    let emit = lowering.emit();
    let (x_shape, weight_shape) = (emit.shape(inputs[0]).to_vec(), emit.shape(inputs[1]).to_vec());
    let axes = conv_axes(conv, &weight_shape[2..]);
    let windows = axes.and_then(|axes| axes.iter().zip(&x_shape[2..]).map(|(axis, &size)| axis.over(size)).collect());
    let window = conv_window(lowering, windows, conv.group)?;
    Ok(lowering.emit().conv(window, inputs, shape))
}

/// `ConvTranspose`: the gradient of a convolution with respect to its input.
fn transposed_convolution(lowering: &mut Lowering<'_, '_>, conv: &ConvTranspose) -> Result<Id, ExecError> {
    let [x, weight] = [lowering.input(0)?, lowering.input(1)?];
    let shape = lowering.shape(0)?;
    let emit = lowering.emit();
    let (x_shape, weight_shape) = (emit.shape(x).to_vec(), emit.shape(weight).to_vec());
    let axes = conv_transpose_axes(conv, &weight_shape[2..]);
    let windows = axes.and_then(|axes| axes.iter().zip(&x_shape[2..]).map(|(axis, &size)| axis.over(size)).collect());
    let window = conv_window(lowering, windows, conv.group)?;
    let y = lowering.emit().conv_input_gradient(window, x, weight, shape.clone());
    Ok(match lowering.optional(2)? {
        Some(bias) => {
            let mut channels = vec![1; shape.len()];
            channels[1] = shape[1];
            let bias = lowering.emit().reshape(bias, &channels);
            lowering.emit().add(y, bias)
        }
        None => y,
    })
}

fn conv_window(
    lowering: &Lowering<'_, '_>,
    windows: Result<Vec<Window>, WindowError>,
    groups: i64,
) -> Result<ConvWindow, ExecError> {
    let unfit = |what: String| lowering.unsupported(what, "give the operator attributes that fit its input");
    let windows = windows.map_err(|error| unfit(error.to_string()))?;
    let groups = usize::try_from(groups).map_err(|_| unfit(format!("`group` is {groups}")))?;
    Ok(ConvWindow {
        strides: windows.iter().map(|window| window.stride).collect(),
        dilations: windows.iter().map(|window| window.dilation).collect(),
        pads: windows.iter().map(|window| (window.pad_begin, window.pad_end)).collect(),
        groups,
    })
}
