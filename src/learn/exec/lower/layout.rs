//! Operators that move elements, and those that only change what is known of them.

use super::{Lowered, Lowering, axis};
use crate::graph::op::{Cast, CumSum, DepthMode, DepthToSpace, Split, Transpose, Trilu};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Node, Op};
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{Id, Kind};

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    let y = match op {
        Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze => {
            let (x, shape) = (lowering.input(0)?, lowering.shape(0)?);
            Some(lowering.emit().reshape(x, &shape))
        }
        Op::Expand => {
            let (x, shape) = (lowering.input(0)?, lowering.shape(0)?);
            Some(lowering.emit().expand(x, &shape))
        }
        Op::Transpose(transpose) => Some(transposed(lowering, transpose)?),
        Op::Tile => tiled(lowering)?,
        Op::Concat(concat) => {
            let parts = lowering.inputs()?;
            let emit = lowering.emit();
            let along = axis(concat.axis, emit.rank(parts[0]));
            Some(emit.concat(along, &parts))
        }
        Op::Slice => sliced(lowering)?,
        Op::DepthToSpace(attributes) => Some(depth_to_space(lowering, attributes)?),
        Op::SpaceToDepth(attributes) => Some(space_to_depth(lowering, attributes)?),
        Op::Trilu(trilu) => triangle(lowering, trilu)?,
        Op::CumSum(cum_sum) => cumulated(lowering, cum_sum)?,
        Op::Cast(_) | Op::CastLike(_) => converted(lowering)?,
        Op::Split(split) => return parts(lowering, split),
        Op::Dropout(_) => return dropout(lowering),
        _ => None,
    };
    Ok(y.map(|y| vec![y]))
}

fn transposed(lowering: &mut Lowering<'_, '_>, transpose: &Transpose) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    let rank = lowering.emit().rank(x);
    let order: Vec<usize> = match transpose.perm.as_slice() {
        [] => (0..rank).rev().collect(),
        order => order.iter().map(|&along| axis(along, rank)).collect(),
    };
    Ok(lowering.emit().transpose(x, &order))
}

/// `Tile`: a new axis beside each one that is repeated, broadcast and taken in.
fn tiled(lowering: &mut Lowering<'_, '_>) -> Result<Option<Id>, ExecError> {
    let (x, shape) = (lowering.input(0)?, lowering.shape(0)?);
    let emit = lowering.emit();
    if emit.program.n_elements(x) == 0 {
        return Ok(None);
    }
    let (mut apart, mut repeated) = (Vec::new(), Vec::new());
    for (&from, &to) in emit.shape(x).iter().zip(&shape) {
        if from != to {
            apart.push(1);
            repeated.push(to / from);
        }
        apart.push(from);
        repeated.push(from);
    }
    let x = emit.reshape(x, &apart);
    let y = emit.expand(x, &repeated);
    Ok(Some(emit.reshape(y, &shape)))
}

/// `Slice` with bounds that are known before anything runs.
fn sliced(lowering: &mut Lowering<'_, '_>) -> Result<Option<Id>, ExecError> {
    let x = lowering.input(0)?;
    let rank = lowering.emit().rank(x);
    let (Ok(Some(begins)), Ok(axes), Ok(strides)) = (lowering.integers(1), lowering.integers(3), lowering.integers(4))
    else {
        return Ok(None);
    };
    let shape = lowering.shape(0)?;
    let named: Vec<usize> = match axes {
        Some(axes) => axes.into_iter().map(|along| axis(along, rank)).collect(),
        None => (0..begins.len()).collect(),
    };
    let (mut starts, mut steps) = (vec![0; rank], vec![1; rank]);
    for (position, &along) in named.iter().enumerate() {
        let size = lowering.emit().shape(x)[along];
        let step = strides.as_ref().map_or(1, |strides| strides[position]);
        // a step beyond an axis takes one element, and any step as long does
        let farthest = i64::try_from(size).unwrap_or(i64::MAX).max(1);
        steps[along] = isize::try_from(step.clamp(-farthest, farthest)).unwrap_or(1);
        starts[along] = first(begins[position], size, step);
    }
    Ok(Some(lowering.emit().slice(x, starts, steps, shape)))
}

/// Where a slice of an axis of this size begins.
fn first(begin: i64, size: usize, step: i64) -> usize {
    let signed_size = i128::try_from(size).unwrap_or(i128::MAX);
    let from_start = if begin < 0 { i128::from(begin) + signed_size } else { begin.into() };
    let last = if step < 0 { signed_size - 1 } else { signed_size };
    usize::try_from(from_start.clamp(0, last.max(0))).unwrap_or(0)
}

/// `Split`: the sizes of the parts are stated, or as equal as they can be.
fn parts(lowering: &mut Lowering<'_, '_>, split: &Split) -> Lowered {
    let x = lowering.input(0)?;
    let along = axis(split.axis, lowering.emit().rank(x));
    let size = lowering.emit().shape(x)[along];
    let n_parts = lowering.node.outputs.len();
    let Ok(stated) = lowering.integers(1) else { return Ok(None) };
    let lengths: Vec<usize> = match stated {
        Some(lengths) => lengths.into_iter().map(|length| usize::try_from(length).unwrap_or(0)).collect(),
        None => {
            let even = size.div_ceil(n_parts.max(1));
            (0..n_parts).map(|idx| even.min(size.saturating_sub(idx * even))).collect()
        }
    };
    let mut start = 0;
    let mut narrowed = Vec::with_capacity(n_parts);
    for length in lengths {
        narrowed.push(lowering.emit().narrow(x, along, start, length));
        start += length;
    }
    Ok(Some(narrowed))
}

fn depth_to_space(lowering: &mut Lowering<'_, '_>, attributes: &DepthToSpace) -> Result<Id, ExecError> {
    let (x, shape) = (lowering.input(0)?, lowering.shape(0)?);
    let emit = lowering.emit();
    let [n, _, height, width] = four(emit.shape(x));
    let size = usize::try_from(attributes.blocksize).unwrap_or(1);
    let channels = shape[1];
    let (apart, order) = match attributes.mode {
        DepthMode::Dcr => ([n, size, size, channels, height, width], [0, 3, 4, 1, 5, 2]),
        DepthMode::Crd => ([n, channels, size, size, height, width], [0, 1, 4, 2, 5, 3]),
    };
    let apart = emit.reshape(x, &apart);
    let moved = emit.transpose(apart, &order);
    Ok(emit.reshape(moved, &shape))
}

fn space_to_depth(lowering: &mut Lowering<'_, '_>, attributes: &DepthToSpace) -> Result<Id, ExecError> {
    let (x, shape) = (lowering.input(0)?, lowering.shape(0)?);
    let emit = lowering.emit();
    let [n, channels, ..] = four(emit.shape(x));
    let size = usize::try_from(attributes.blocksize).unwrap_or(1);
    let order = match attributes.mode {
        DepthMode::Dcr => [0, 3, 5, 1, 2, 4],
        DepthMode::Crd => [0, 1, 3, 5, 2, 4],
    };
    let apart = emit.reshape(x, &[n, channels, shape[2], size, shape[3], size]);
    let moved = emit.transpose(apart, &order);
    Ok(emit.reshape(moved, &shape))
}

/// The sizes of an image, which inference has checked to be one.
fn four(shape: &[usize]) -> [usize; 4] {
    shape.try_into().expect("an image has four axes")
}

/// `Trilu`: what lies on the other side of the diagonal becomes zero.
fn triangle(lowering: &mut Lowering<'_, '_>, trilu: &Trilu) -> Result<Option<Id>, ExecError> {
    let x = lowering.input(0)?;
    let Ok(offset) = lowering.integers(1) else { return Ok(None) };
    let offset = i128::from(offset.and_then(|offset| offset.first().copied()).unwrap_or(0));
    let &[.., n_rows, n_columns] = lowering.emit().shape(x) else { return Ok(None) };
    let signed = |idx: usize| i128::try_from(idx).unwrap_or(i128::MAX);
    let is_kept = |idx: usize| {
        let diagonal = signed(idx % n_columns) - signed(idx / n_columns);
        if trilu.upper { diagonal >= offset } else { diagonal <= offset }
    };
    let mask = Tensor::new(&[n_rows, n_columns], (0..n_rows * n_columns).map(is_kept).collect())?;
    let emit = lowering.emit();
    let (mask, zero) = (emit.constant(mask), emit.scalar(0.0));
    Ok(Some(emit.select(mask, x, zero)))
}

fn cumulated(lowering: &mut Lowering<'_, '_>, cum_sum: &CumSum) -> Result<Option<Id>, ExecError> {
    let x = lowering.input(0)?;
    let Ok(Some(along)) = lowering.integers(1) else { return Ok(None) };
    let Some(&along) = along.first() else { return Ok(None) };
    let emit = lowering.emit();
    let along = axis(along, emit.rank(x));
    Ok(Some(emit.cum_sum(x, along, cum_sum.exclusive, cum_sum.reverse)))
}

/// `Cast` to a floating-point type. `f32` and `f64` are what the backend computes with; to one of 16 bits values
/// are rounded, and the gradient passes as if they were not (the straight-through estimator: Bengio, Léonard and Courville,
/// Estimating or Propagating Gradients Through Stochastic Neurons, 2013, arXiv:1308.3432, section 4). So are numbers that come
/// back from a cast to a type of 8 bits and fewer.
fn converted(lowering: &mut Lowering<'_, '_>) -> Result<Option<Id>, ExecError> {
    let Some(cast) = cast_of(lowering, lowering.node) else { return Ok(None) };
    let x = lowering.input(0)?;
    let kind = lowering.emit().kind(x);
    let narrowed = if kind == Kind::Float { None } else { narrowed(lowering) };
    let emit = lowering.emit();
    let x = match (kind, narrowed) {
        (Kind::Float, _) => x,
        (_, Some((numbers, narrow))) => emit.round_to(narrow, numbers),
        (Kind::Plain(DType::String | DType::Complex64 | DType::Complex128), None) => return Ok(None),
        (Kind::Plain(_) | Kind::Index, None) => emit.plain_as_float(x),
    };
    Ok(match cast.to {
        DType::F32 | DType::F64 => Some(x),
        _ => Some(emit.round_to(cast, x)),
    })
}

/// The cast that a node is.
fn cast_of(lowering: &Lowering<'_, '_>, node: &Node) -> Option<Cast> {
    let (saturate, round_mode) = match &node.op {
        Op::Cast(cast) => (cast.saturate, cast.round_mode),
        Op::CastLike(cast) => (cast.saturate, cast.round_mode),
        _ => return None,
    };
    let to = lowering.compiler.types.tensor(node.output(0)?)?.dtype;
    Some(Cast { to, saturate, round_mode })
}

/// Where the input is numbers to compute with that were cast to a narrow floating-point type: these numbers, and the cast.
fn narrowed(lowering: &Lowering<'_, '_>) -> Option<(Id, Cast)> {
    let name = lowering.node.input(0)?;
    let node = lowering.compiler.graph.nodes.iter().find(|node| node.output(0) == Some(name))?;
    let cast = cast_of(lowering, node).filter(|cast| cast.to.is_float())?;
    let numbers = lowering.compiler.get(node.input(0)?).ok()?;
    (lowering.compiler.emitter.kind(numbers) == Kind::Float).then_some((numbers, cast))
}

/// `Dropout`. A network that does not learn keeps everything, unless it was exported so as not to: then the reference
/// interpreter draws. One that learns drops; its mask, which is of truth values, cannot be read.
fn dropout(lowering: &mut Lowering<'_, '_>) -> Lowered {
    let x = lowering.input(0)?;
    if !lowering.is_training() {
        let is_off = lowering.node.input(2).is_none()
            || lowering.constant(2).and_then(|on| on.to_vec::<bool>().ok()).is_some_and(|on| on == [false]);
        if !is_off {
            return Ok(None);
        }
        let shape = lowering.emit().shape(x).to_vec();
        let all = Tensor::new(&shape, vec![true; shape.iter().product()])?;
        let mask = lowering.emit().constant(all);
        return Ok(Some(vec![x, mask]));
    }
    if let Some(mask) = lowering.node.output(1) {
        let is_read = lowering.compiler.graph.nodes.iter().any(|node| node.reads().any(|name| name == mask));
        if is_read || lowering.compiler.request.outputs.contains(mask) {
            let what = format!("`{mask}`, the mask of a dropout, is read while the network learns");
            return Err(lowering.unsupported(what, "take out what reads it"));
        }
    }
    let ratio = match lowering.node.input(1) {
        None => Some(0.5),
        Some(_) => lowering.number(1),
    };
    let Some(ratio) = ratio.filter(|ratio| (0.0..1.0).contains(ratio)) else {
        return Err(lowering.unsupported("its ratio is not a known number from 0 to 1", "make it a constant below 1"));
    };
    if ratio == 0.0 {
        return Ok(Some(vec![x]));
    }
    let stream = lowering.compiler.n_streams;
    lowering.compiler.n_streams += 1;
    let [y, _] = lowering.emit().dropout(x, ratio, stream);
    Ok(Some(vec![y]))
}
