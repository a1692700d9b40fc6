//! Poolings and `Resize`.

use super::{Lowered, Lowering};
use crate::graph::Op;
use crate::graph::eval::axis_weights;
use crate::graph::op::{AveragePool, MaxPool, Resize};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::window::{Axis, Window, WindowError, average_pool_axes, max_pool_axes};
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{AxisMap, Id, Kind, PoolWindow};

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    match op {
        Op::MaxPool(pool) => maxima(lowering, pool).map(Some),
        Op::AveragePool(pool) => averages(lowering, pool).map(|y| Some(vec![y])),
        Op::Resize(resize) => resized(lowering, resize),
        _ => Ok(None),
    }
}

/// `MaxPool`; the indices of its second output count through the whole tensor, as the reference interpreter has them.
fn maxima(lowering: &mut Lowering<'_, '_>, pool: &MaxPool) -> Result<Vec<Id>, ExecError> {
    let x = lowering.input(0)?;
    let window = window(lowering, x, max_pool_axes(pool))?;
    let shape = lowering.shape(0)?;
    let [y, _] = lowering.emit().max_pool(window, x, shape.clone());
    if lowering.node.output(1).is_none() {
        return Ok(vec![y]);
    }
    let outputs = vec![(Kind::Float, shape.clone()), (Kind::Plain(DType::I64), shape)];
    let found = lowering.computed(&Op::MaxPool(pool.clone()), &[Some(x)], outputs)?;
    Ok(vec![y, found[1]])
}

fn averages(lowering: &mut Lowering<'_, '_>, pool: &AveragePool) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    let window = window(lowering, x, average_pool_axes(pool))?;
    let shape = lowering.shape(0)?;
    Ok(lowering.emit().average_pool(window, pool.count_include_pad, x, shape))
}

fn window(
    lowering: &mut Lowering<'_, '_>,
    x: Id,
    axes: Result<Vec<Axis>, WindowError>,
) -> Result<PoolWindow, ExecError> {
    let sizes = lowering.emit().shape(x)[2..].to_vec();
    let windows = axes.and_then(|axes| axes.iter().zip(&sizes).map(|(axis, &size)| axis.over(size)).collect());
    let unfit =
        |error: WindowError| lowering.unsupported(error.to_string(), "give the operator attributes that fit its input");
    let windows: Vec<Window> = windows.map_err(unfit)?;
    Ok(PoolWindow {
        kernel: windows.iter().map(|window| window.kernel).collect(),
        strides: windows.iter().map(|window| window.stride).collect(),
        dilations: windows.iter().map(|window| window.dilation).collect(),
        pads: windows.iter().map(|window| (window.pad_begin, window.pad_end)).collect(),
    })
}

/// `Resize`: a linear map along each axis that changes, and a constant where it is extrapolated.
fn resized(lowering: &mut Lowering<'_, '_>, resize: &Resize) -> Lowered {
    let mut y = lowering.input(0)?;
    let from = lowering.emit().shape(y).to_vec();
    if from.contains(&0) || lowering.shape(0)?.contains(&0) {
        return Ok(None);
    }
    let mut inputs: Vec<Option<Tensor>> = vec![None];
    for position in 1..4 {
        let constant = lowering.constant(position).cloned();
        if lowering.node.input(position).is_some() && constant.is_none() {
            return Ok(None);
        }
        inputs.push(constant);
    }
    let tables = axis_weights(resize, &from, &inputs).map_err(|source| lowering.refused(source))?;
    for (along, table) in tables.into_iter().enumerate() {
        let Some(table) = table else { continue };
        let is_outside: Vec<bool> = table.iter().map(Option::is_none).collect();
        let terms: Vec<Vec<(usize, f64)>> = table.into_iter().map(Option::unwrap_or_default).collect();
        let is_same = |(idx, terms): (usize, &Vec<(usize, f64)>)| *terms == [(idx, 1.0)];
        if terms.len() == from[along] && terms.iter().enumerate().all(is_same) {
            continue;
        }
        y = lowering.emit().map_axis(y, along, AxisMap { n_in: from[along], terms }.into());
        if is_outside.contains(&true) && resize.extrapolation_value != 0.0 {
            let value = |&outside: &bool| if outside { resize.extrapolation_value } else { 0.0 };
            let mut shape = vec![1; from.len()];
            shape[along] = is_outside.len();
            let values = Tensor::new(&shape, is_outside.iter().map(value).collect::<Vec<f32>>())?;
            let values = lowering.emit().constant(values);
            y = lowering.emit().add(y, values);
        }
    }
    Ok(Some(vec![y]))
}
