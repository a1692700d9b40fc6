//! Steps of recurrent layers on candle's tensors: the equations of `kernels::recurrent`.

use candle_core::{Result, Tensor};

use super::unary;
use crate::learn::kernels::elementwise::Unary;

/// The gate of this number: columns of the width of the state.
fn gate(gates: &Tensor, state: &Tensor, number: usize) -> Result<Tensor> {
    let hidden = state.dims()[1];
    gates.narrow(1, number * hidden, hidden)?.contiguous()
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    unary::forward(Unary::Sigmoid, x)
}

/// `1 - x`
fn rest(x: &Tensor) -> Result<Tensor> {
    x.affine(-1.0, 1.0)
}

/// `x (1 - x)`: the derivative of the sigmoid by its value.
fn slope(x: &Tensor) -> Result<Tensor> {
    x * rest(x)?
}

pub(super) fn gru_cell([sums, recurrent, h]: [&Tensor; 3]) -> Result<Vec<Tensor>> {
    let both = |number: usize| Ok::<_, candle_core::Error>([gate(sums, h, number)?, gate(recurrent, h, number)?]);
    let [update, reset] = [both(0)?, both(1)?].map(|[x, h]| sigmoid(&(x + h)?));
    let (update, reset) = (update?, reset?);
    let [from_x, from_h] = both(2)?;
    let new = (from_x + (&reset * from_h)?)?.tanh()?;
    let after = (&new + (&update * (h - &new)?)?)?;
    Ok(vec![after, Tensor::cat(&[&update, &reset, &new], 1)?])
}

pub(super) fn gru_cell_gradient([gates, recurrent, h, dh]: [&Tensor; 4]) -> Result<Vec<Tensor>> {
    let [update, reset, new] = [gate(gates, h, 0)?, gate(gates, h, 1)?, gate(gates, h, 2)?];
    let of_new = ((dh * rest(&update)?)? * rest(&new.sqr()?)?)?;
    let of_update = ((dh * (h - &new)?)? * slope(&update)?)?;
    let of_reset = ((&of_new * gate(recurrent, h, 2)?)? * slope(&reset)?)?;
    let of_sums = Tensor::cat(&[&of_update, &of_reset, &of_new], 1)?;
    let of_recurrent = Tensor::cat(&[&of_update, &of_reset, &(&of_new * &reset)?], 1)?;
    Ok(vec![of_sums, of_recurrent, (dh * update)?])
}

pub(super) fn lstm_cell([sums, recurrent, c]: [&Tensor; 3]) -> Result<Vec<Tensor>> {
    let sums = (sums + recurrent)?;
    let [input, output, forget] = [0, 1, 2].map(|number| sigmoid(&gate(&sums, c, number)?));
    let (input, output, forget) = (input?, output?, forget?);
    let candidate = gate(&sums, c, 3)?.tanh()?;
    let after = ((&forget * c)? + (&input * &candidate)?)?;
    let h = (&output * after.tanh()?)?;
    Ok(vec![h, after, Tensor::cat(&[&input, &output, &forget, &candidate], 1)?])
}

pub(super) fn lstm_cell_gradient([gates, c, after, dh, dc]: [&Tensor; 5]) -> Result<Vec<Tensor>> {
    let [input, output, forget] = [gate(gates, c, 0)?, gate(gates, c, 1)?, gate(gates, c, 2)?];
    let candidate = gate(gates, c, 3)?;
    let squashed = after.tanh()?;
    let whole = (dc + ((dh * &output)? * rest(&squashed.sqr()?)?)?)?;
    let of_output = ((dh * squashed)? * slope(&output)?)?;
    let of_input = ((&whole * &candidate)? * slope(&input)?)?;
    let of_forget = ((&whole * c)? * slope(&forget)?)?;
    let of_candidate = ((&whole * &input)? * rest(&candidate.sqr()?)?)?;
    Ok(vec![Tensor::cat(&[&of_input, &of_output, &of_forget, &of_candidate], 1)?, (whole * forget)?])
}
