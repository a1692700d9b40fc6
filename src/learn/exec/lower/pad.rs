//! `Pad`: constants around a tensor, or what a mirror, an edge or a repetition shows there.

use super::{Lowered, Lowering, axis};
use crate::graph::Op;
use crate::graph::eval::padding_source;
use crate::graph::op::PadMode;
use crate::graph::tensor::Tensor;
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{AxisMap, Id};

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    let Op::Pad(pad) = op else { return Ok(None) };
    let x = lowering.input(0)?;
    let Some(pads) = pads(lowering, x) else { return Ok(None) };
    let shape = lowering.shape(0)?;
    let kept = cropped(lowering, x, &pads);
    let y = match pad.mode {
        PadMode::Constant => surrounded(lowering, kept, &pads, shape)?,
        PadMode::Reflect | PadMode::Edge | PadMode::Wrap => continued(lowering, pad.mode, kept, &pads, &shape),
    };
    Ok(Some(vec![y]))
}

/// By axis the elements added before and after, negative where some are taken away; none where they are not known.
fn pads(lowering: &mut Lowering<'_, '_>, x: Id) -> Option<Vec<(i64, i64)>> {
    let rank = lowering.emit().rank(x);
    let listed = lowering.integers(1).ok()??;
    let axes: Vec<usize> = match lowering.integers(3).ok()? {
        Some(axes) => axes.into_iter().map(|along| axis(along, rank)).collect(),
        None => (0..rank).collect(),
    };
    let (begins, ends) = listed.split_at_checked(axes.len()).filter(|(begins, ends)| begins.len() == ends.len())?;
    let mut pads = vec![(0, 0); rank];
    for (&along, (&begin, &end)) in axes.iter().zip(begins.iter().zip(ends)) {
        *pads.get_mut(along)? = (begin, end);
    }
    Some(pads)
}

/// What negative pads leave.
fn cropped(lowering: &mut Lowering<'_, '_>, x: Id, pads: &[(i64, i64)]) -> Id {
    let taken = |pad: i64| usize::try_from(pad.saturating_neg()).unwrap_or(0);
    let emit = lowering.emit();
    let sizes = emit.shape(x).iter().zip(pads);
    let shape = sizes.map(|(&size, &(begin, end))| size.saturating_sub(taken(begin)).saturating_sub(taken(end)));
    let shape: Vec<usize> = shape.collect();
    let starts = pads.iter().map(|&(begin, _)| taken(begin)).collect();
    emit.slice(x, starts, vec![1; pads.len()], shape)
}

/// A constant around `x`; where it is not known before the network runs, or learns, it is put in afterwards.
fn surrounded(lowering: &mut Lowering<'_, '_>, x: Id, pads: &[(i64, i64)], shape: Vec<usize>) -> Result<Id, ExecError> {
    let begins: Vec<usize> = pads.iter().map(|&(begin, _)| usize::try_from(begin).unwrap_or(0)).collect();
    let value = match lowering.node.input(2) {
        None => Some(0.0),
        Some(_) => lowering.number(2),
    };
    if let Some(value) = value {
        return Ok(lowering.emit().pad(x, begins, value, shape));
    }
    let inside: Vec<usize> = lowering.emit().shape(x).to_vec();
    let is_inside = |flat: usize| {
        let mut rest = flat;
        (0..shape.len()).rev().all(|along| {
            let at = rest % shape[along];
            rest /= shape[along];
            (begins[along]..begins[along] + inside[along]).contains(&at)
        })
    };
    let mask = Tensor::new(&shape, (0..shape.iter().product()).map(is_inside).collect())?;
    let value = lowering.input(2)?;
    let emit = lowering.emit();
    let mask = emit.constant(mask);
    let value = emit.reshape(value, &[]);
    let padded = emit.pad(x, begins, 0.0, shape);
    Ok(emit.select(mask, padded, value))
}

/// Axis by axis, elements of `x` again where it ends.
fn continued(lowering: &mut Lowering<'_, '_>, mode: PadMode, x: Id, pads: &[(i64, i64)], shape: &[usize]) -> Id {
    let signed = |size: usize| i128::try_from(size).unwrap_or(i128::MAX);
    let emit = lowering.emit();
    let mut y = x;
    for (along, &(begin, _)) in pads.iter().enumerate() {
        let n_in = emit.shape(y)[along];
        if n_in == shape[along] {
            continue;
        }
        let begin = i128::from(begin.max(0));
        let source = |idx: usize| padding_source(signed(idx) - begin, (0, signed(n_in)), mode);
        let terms = (0..shape[along]).map(|idx| source(idx).map(|at| (at, 1.0)).into_iter().collect()).collect();
        y = emit.map_axis(y, along, AxisMap { n_in, terms }.into());
    }
    y
}
