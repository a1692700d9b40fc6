//! Operators that take elements by index or put them there.
//!
//! Which elements these are is found by asking the reference interpreter to gather from a table of positions: now
//! where the indices are the same in every run, else in a step. What moves numbers is then a gather or a scatter of rows.

use super::{Lowered, Lowering, axis};
use crate::graph::Op;
use crate::graph::op::{Gather, GatherND, Reduction, TopK};
use crate::graph::tensor::{DType, Tensor};
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{Id, Kind};

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    match op {
        Op::Gather(gather) => {
            let [x, indices] = [lowering.input(0)?, lowering.input(1)?];
            if !is_index(lowering, indices) {
                return Ok(None);
            }
            let emit = lowering.emit();
            let along = axis(gather.axis, emit.rank(x));
            Ok(Some(vec![emit.gather(x, along, indices)]))
        }
        Op::GatherElements(gather) => {
            let [x, indices] = [lowering.input(0)?, lowering.input(1)?];
            if lowering.emit().program.n_elements(x) == 0 {
                return Ok(None);
            }
            Ok(Some(vec![along_axis(lowering, x, indices, gather.axis)?]))
        }
        Op::GatherND(gather) => blocks(lowering, gather),
        Op::ScatterElements(scatter) => {
            let [x, indices] = [lowering.input(0)?, lowering.input(1)?];
            let shape = lowering.emit().shape(x).to_vec();
            let table = Op::GatherElements(Gather { axis: scatter.axis });
            let targets_shape = lowering.emit().shape(indices).to_vec();
            scattered(lowering, &table, &shape, targets_shape, scatter.reduction)
        }
        Op::ScatterND(scatter) => {
            let [x, indices] = [lowering.input(0)?, lowering.input(1)?];
            let (x_shape, indices_shape) = (lowering.emit().shape(x).to_vec(), lowering.emit().shape(indices).to_vec());
            let Some((&n_each, tuples)) = indices_shape.split_last() else { return Ok(None) };
            let table = Op::GatherND(GatherND { batch_dims: 0 });
            scattered(lowering, &table, &x_shape[..n_each.min(x_shape.len())], tuples.to_vec(), scatter.reduction)
        }
        Op::TopK(top) => greatest(lowering, top),
        Op::OneHot(_) => one_hot(lowering),
        _ => Ok(None),
    }
}

fn is_index(lowering: &mut Lowering<'_, '_>, id: Id) -> bool {
    matches!(lowering.emit().kind(id), Kind::Plain(DType::I64 | DType::I32))
}

/// The positions that `indices` name in a tensor of shape `table`, which `gather` takes from.
fn positions(
    lowering: &mut Lowering<'_, '_>,
    gather: &Op,
    table: &[usize],
    indices: Id,
    shape: &[usize],
) -> Result<Id, ExecError> {
    let n: usize = table.iter().product();
    let numbers = (0..n).map(|position| i64::try_from(position).unwrap_or(i64::MAX)).collect();
    let numbers = Tensor::new(table, numbers)?;
    let numbers = lowering.emit().constant(numbers);
    lowering.plain(gather, &[numbers, indices], DType::I64, shape)
}

/// `GatherElements`
fn along_axis(lowering: &mut Lowering<'_, '_>, x: Id, indices: Id, along: i64) -> Result<Id, ExecError> {
    let (shape, wanted) = (lowering.emit().shape(x).to_vec(), lowering.emit().shape(indices).to_vec());
    let gather = Op::GatherElements(Gather { axis: along });
    let rows = positions(lowering, &gather, &shape, indices, &wanted)?;
    let emit = lowering.emit();
    let flat = emit.reshape(x, &[shape.iter().product()]);
    Ok(emit.gather(flat, 0, rows))
}

/// `GatherND`: rows of the tensor whose first axes, those that are indexed, are one.
fn blocks(lowering: &mut Lowering<'_, '_>, gather: &GatherND) -> Lowered {
    let [x, indices] = [lowering.input(0)?, lowering.input(1)?];
    let (x_shape, indices_shape) = (lowering.emit().shape(x).to_vec(), lowering.emit().shape(indices).to_vec());
    let Some((&n_each, tuples)) = indices_shape.split_last() else { return Ok(None) };
    let n_indexed = usize::try_from(gather.batch_dims).unwrap_or(0) + n_each;
    if x_shape.contains(&0) || n_indexed > x_shape.len() {
        return Ok(None);
    }
    let (table, block) = x_shape.split_at(n_indexed);
    let rows = positions(lowering, &Op::GatherND(gather.clone()), table, indices, tuples)?;
    let shape = lowering.shape(0)?;
    let emit = lowering.emit();
    let x = emit.reshape(x, &[table.iter().product(), block.iter().product()]);
    let y = emit.gather(x, 0, rows);
    Ok(Some(vec![emit.reshape(y, &shape)]))
}

/// The updates put at, or added to, the elements or blocks that the indices name. Where indices repeat without a reduction,
/// which ONNX forbids, the last update stays and the gradient reaches all of them.
fn scattered(
    lowering: &mut Lowering<'_, '_>,
    gather: &Op,
    table: &[usize],
    targets_shape: Vec<usize>,
    reduction: Reduction,
) -> Lowered {
    let [x, indices, updates] = [lowering.input(0)?, lowering.input(1)?, lowering.input(2)?];
    let shape = lowering.emit().shape(x).to_vec();
    if shape.contains(&0) || lowering.emit().program.n_elements(updates) == 0 {
        return Ok(None);
    }
    let is_sum = match reduction {
        Reduction::None => false,
        Reduction::Add => true,
        Reduction::Mul | Reduction::Max | Reduction::Min => return Ok(None),
    };
    let rows = positions(lowering, gather, table, indices, &targets_shape)?;
    let emit = lowering.emit();
    let n_rows: usize = table.iter().product();
    let n_row = shape.iter().product::<usize>() / n_rows;
    let flat = emit.reshape(x, &[n_rows, n_row]);
    let updates = emit.reshape(updates, &[targets_shape, vec![n_row]].concat());
    let y = if is_sum {
        let sums = emit.gather_gradient(updates, 0, rows, vec![n_rows, n_row]);
        emit.add(flat, sums)
    } else {
        emit.scatter_rows(flat, rows, updates)
    };
    Ok(Some(vec![emit.reshape(y, &shape)]))
}

/// `TopK`: the values are gathered at the indices that the reference interpreter finds.
fn greatest(lowering: &mut Lowering<'_, '_>, top: &TopK) -> Lowered {
    let [x, k] = [lowering.input(0)?, lowering.input(1)?];
    let shape = lowering.shape(0)?;
    if lowering.emit().program.n_elements(x) == 0 {
        return Ok(None);
    }
    let outputs = vec![(Kind::Float, shape.clone()), (Kind::Plain(DType::I64), shape)];
    let found = lowering.computed(&Op::TopK(top.clone()), &[Some(x), Some(k)], outputs)?;
    let values = along_axis(lowering, x, found[1], top.axis)?;
    Ok(Some(vec![values, found[1]]))
}

/// `OneHot` of values that may learn: `off + (on − off)` where it is hot.
fn one_hot(lowering: &mut Lowering<'_, '_>) -> Lowered {
    let [indices, depth, values] = [lowering.input(0)?, lowering.input(1)?, lowering.input(2)?];
    if lowering.constant_of(values).is_some() {
        return Ok(None);
    }
    let shape = lowering.shape(0)?;
    let zero_one = lowering.emit().constant(Tensor::vector(vec![0f32, 1.0]));
    let op = lowering.node.op.clone();
    let inputs = [Some(indices), Some(depth), Some(zero_one)];
    let hot = lowering.computed(&op, &inputs, vec![(Kind::Float, shape)])?[0];
    let emit = lowering.emit();
    let (off, on) = (emit.narrow(values, 0, 0, 1), emit.narrow(values, 0, 1, 1));
    let step = emit.sub(on, off);
    let step = emit.reshape(step, &[]);
    let off = emit.reshape(off, &[]);
    let steps = emit.mul(hot, step);
    Ok(Some(vec![emit.add(steps, off)]))
}
