//! Operators that arrange, join, split and repeat elements.

use std::ops::Range;

use super::norm::without;
use super::{Facts, Fold, Map, Port, Slot, elementwise, input, output};
use crate::graph::Dim;
use crate::graph::op::{CoordinateTransformation, DepthMode, DepthToSpace, PadMode, Resize};

/// Batch and channel stay; the places of the spatial axes are other ones. `Indices` of MaxPool count through all of them.
pub(super) fn pool(facts: &mut Facts<'_>) {
    if facts.node.output(1).is_some() {
        [0, 1].into_iter().for_each(|axis| facts.pin(input(0, axis), "its indices count along it"));
    }
    for position in 0..facts.node.outputs.len() {
        [0, 1].into_iter().for_each(|axis| facts.same(input(0, axis), output(position, axis)));
        (2..facts.rank(Port::Output(position)))
            .for_each(|axis| facts.pin(output(position, axis), "a window moves along it"));
    }
    (2..facts.rank(Port::Input(0))).for_each(|axis| facts.pin(input(0, axis), "a window moves along it"));
}

/// As [`pool`], unless the channels are last.
pub(super) fn quantized_pool(facts: &mut Facts<'_>, channels_last: bool) {
    if channels_last { facts.pin_all("its channels are last") } else { pool(facts) }
}

/// The inputs, one after the other along an axis.
pub(super) fn concat(facts: &mut Facts<'_>, axis: i64) {
    let Some(axis) = facts.axis(Port::Output(0), axis) else {
        return facts.pin_all("its axis is out of range");
    };
    let mut to = Some(0);
    for position in 0..facts.node.inputs.len() {
        for other in (0..facts.rank(Port::Input(position))).filter(|&other| other != axis) {
            facts.same(input(position, other), output(0, other));
        }
        let slot = input(position, axis);
        match (facts.size(slot), to) {
            (Some(len), Some(start)) => {
                facts.tie(slot, output(0, axis), Map::Range { from: 0, to: start, len });
                to = start.checked_add(len);
            }
            (None, _) | (_, None) => {
                facts.pin(slot, "the sizes before it are not known");
                facts.pin(output(0, axis), "the sizes joined in it are not known");
                to = None;
            }
        }
    }
}

/// The pieces of an axis, one output each.
pub(super) fn split(facts: &mut Facts<'_>, axis: i64) {
    let Some(axis) = facts.axis(Port::Input(0), axis) else {
        return facts.pin_all("its axis is out of range");
    };
    let mut from = Some(0usize);
    for position in 0..facts.node.outputs.len() {
        for other in (0..facts.rank(Port::Input(0))).filter(|&other| other != axis) {
            facts.same(input(0, other), output(position, other));
        }
        let slot = output(position, axis);
        match (facts.size(slot), from) {
            (Some(len), Some(start)) => {
                facts.tie(input(0, axis), slot, Map::Range { from: start, to: 0, len });
                from = start.checked_add(len);
            }
            (None, _) | (_, None) => {
                facts.pin(slot, "the sizes before it are not known");
                facts.pin(input(0, axis), "the sizes it is split into are not known");
                from = None;
            }
        }
    }
}

/// `[N, b² · C, H, W]` to `[N, C, b · H, b · W]`, the parts of a channel next to each other (CRD) or a whole C apart.
pub(super) fn depth_to_space(facts: &mut Facts<'_>, attributes: &DepthToSpace) {
    moved_between(facts, parts(attributes), output(0, 1), input(0, 1));
}

/// `[N, C, H, W]` to `[N, b² · C, H / b, W / b]`, the parts of a channel as in [`depth_to_space`].
pub(super) fn space_to_depth(facts: &mut Facts<'_>, attributes: &DepthToSpace) {
    moved_between(facts, parts(attributes), input(0, 1), output(0, 1));
}

/// Where the parts of a channel are: a whole C apart (DCR) or next to each other (CRD).
fn parts(attributes: &DepthToSpace) -> Option<Map> {
    let size = usize::try_from(attributes.blocksize).ok().filter(|&size| size > 0)?;
    let n_parts = size.checked_mul(size)?;
    Some(match attributes.mode {
        DepthMode::Dcr => Map::Blocks { outer: n_parts, inner: 1 },
        DepthMode::Crd => Map::Blocks { outer: 1, inner: n_parts },
    })
}

fn moved_between(facts: &mut Facts<'_>, map: Option<Map>, few: Slot, many: Slot) {
    let Some(map) = map else { return facts.pin_all("its block size is out of range") };
    facts.same(input(0, 0), output(0, 0));
    facts.tie(few, many, map);
    for port in [Port::Input(0), Port::Output(0)] {
        (2..facts.rank(port)).for_each(|axis| facts.pin(Slot { port, axis }, "its blocks lie along it"));
    }
}

/// Axes of size one are repeated, the others stay.
pub(super) fn expand(facts: &mut Facts<'_>) {
    elementwise::broadcast_of(facts, &[0]);
}

/// `[a, b, c, d]` to `[a · b, c · d]`.
pub(super) fn flatten(facts: &mut Facts<'_>, axis: i64) {
    let rank = facts.rank(Port::Input(0));
    let at_end = i64::try_from(rank) == Ok(axis);
    let Some(axis) = Some(rank).filter(|_| at_end).or_else(|| facts.axis(Port::Input(0), axis)) else {
        return facts.pin_all("its axis is out of range");
    };
    regroup(facts, 0..axis, 0..1);
    regroup(facts, axis..rank, 1..2);
}

/// Slices that are added before and after an axis belong to nothing before it.
pub(super) fn pad(facts: &mut Facts<'_>, mode: PadMode) {
    let rank = facts.rank(Port::Input(0));
    let pads = facts.integers(1).filter(|pads| pads.len() == 2 * rank && facts.node.input(3).is_none());
    let Some(pads) = pads else { return facts.pin_all("its padding is not known") };
    for axis in 0..rank {
        match (pads[axis], pads[axis + rank]) {
            (0, 0) => facts.same(input(0, axis), output(0, axis)),
            (begin, end) if begin >= 0 && end >= 0 && mode == PadMode::Constant => {
                let to = usize::try_from(begin).unwrap_or(usize::MAX);
                let len = facts.size(input(0, axis)).unwrap_or(0);
                facts.tie(input(0, axis), output(0, axis), Map::Range { from: 0, to, len });
            }
            (_, _) => {
                facts.pin(input(0, axis), "its edges are repeated or cut off");
                facts.pin(output(0, axis), "its edges are repeated or cut off");
            }
        }
    }
}

/// Batch and channel where they are not scaled; the other axes are interpolated.
pub(super) fn resize(facts: &mut Facts<'_>, attributes: &Resize) {
    let crops = attributes.coordinate_transformation_mode == CoordinateTransformation::TfCropAndResize;
    let scales =
        facts.node.input(2).and_then(|name| facts.types.constant(name)).and_then(|scales| scales.to_f32s().ok());
    for axis in 0..facts.rank(Port::Input(0)) {
        let unscaled = match (&scales, facts.node.input(2)) {
            (Some(scales), _) => scales.get(axis) == Some(&1.0),
            (None, Some(_)) => false,
            (None, None) => true,
        };
        let kept = facts.dim(input(0, axis)) == facts.dim(output(0, axis));
        if axis < 2 && kept && unscaled && !crops && attributes.axes.is_empty() {
            facts.same(input(0, axis), output(0, axis));
        } else {
            facts.pin(input(0, axis), "it is interpolated");
            facts.pin(output(0, axis), "it is interpolated");
        }
    }
}

/// Known starts and a step of one can be counted anew.
pub(super) fn slice(facts: &mut Facts<'_>) {
    let rank = facts.rank(Port::Input(0));
    let starts = facts.integers(1);
    let axes = match (facts.node.input(3), facts.integers(3)) {
        (None, _) => i64::try_from(starts.as_ref().map_or(rank, Vec::len)).ok().map(|n| (0..n).collect()),
        (Some(_), axes) => axes,
    };
    let Some(axes) = axes else { return facts.pin_all("its axes are not known") };
    let axes: Vec<Option<usize>> = axes.iter().map(|&axis| facts.axis(Port::Input(0), axis)).collect();
    let steps = if facts.node.input(4).is_none() { Some(vec![1; axes.len()]) } else { facts.integers(4) };
    let ends = facts.integers(2);
    for axis in 0..rank {
        let Some(position) = axes.iter().position(|&other| other == Some(axis)) else {
            facts.same(input(0, axis), output(0, axis));
            continue;
        };
        let entry = |list: &Option<Vec<i64>>| list.as_ref().and_then(|list| list.get(position).copied());
        let start = entry(&starts).zip(facts.size(input(0, axis))).and_then(|(start, size)| from_start(start, size));
        match (start, entry(&steps), facts.size(output(0, axis)), entry(&ends)) {
            (Some(from), Some(1), Some(len), Some(_)) => {
                facts.tie(input(0, axis), output(0, axis), Map::Range { from, to: 0, len });
            }
            (_, _, _, _) => {
                facts.pin(input(0, axis), "it is sliced by data or with a step");
                facts.pin(output(0, axis), "it is sliced by data or with a step");
            }
        }
    }
}

/// Where a slice begins: from the back where it is negative, and never outside.
pub(in crate::graph) fn from_start(start: i64, size: usize) -> Option<usize> {
    let n = i64::try_from(size).ok()?;
    let start = if start < 0 { start.checked_add(n)? } else { start };
    usize::try_from(start.clamp(0, n)).ok()
}

/// Axes of size one come or go.
pub(super) fn squeeze(facts: &mut Facts<'_>) {
    let (before, after) = (facts.rank(Port::Input(0)), facts.rank(Port::Output(0)));
    let squeezes = matches!(facts.node.op, crate::graph::Op::Squeeze);
    let longer = if squeezes { Port::Input(0) } else { Port::Output(0) };
    let axes = facts
        .integers(1)
        .and_then(|axes| axes.iter().map(|&axis| facts.axis(longer, axis)).collect::<Option<Vec<usize>>>());
    match axes {
        Some(axes) if squeezes => without(facts, &axes, false),
        Some(axes) => {
            let kept: Vec<usize> = (0..after).filter(|axis| !axes.contains(axis)).collect();
            kept.iter().enumerate().for_each(|(own, &other)| facts.same(input(0, own), output(0, other)));
        }
        None => regroup(facts, 0..before, 0..after),
    }
}

/// The whole is repeated: index `i` is found again a whole size further on.
pub(super) fn tile(facts: &mut Facts<'_>) {
    for axis in 0..facts.rank(Port::Input(0)) {
        match (facts.size(input(0, axis)), facts.size(output(0, axis))) {
            (Some(before), Some(after)) if before > 1 => {
                facts.tie(input(0, axis), output(0, axis), Map::Blocks { outer: after / before, inner: 1 });
            }
            (Some(1), Some(after)) if after > 1 => facts.pin(output(0, axis), "one slice is repeated along it"),
            (_, _) => facts.same(input(0, axis), output(0, axis)),
        }
    }
}

/// Output axis `i` is input axis `perm[i]`; without a permutation they are reversed.
pub(super) fn transpose(facts: &mut Facts<'_>, perm: &[i64]) {
    let rank = facts.rank(Port::Input(0));
    for axis in 0..rank {
        let from =
            if perm.is_empty() { Some(rank - 1 - axis) } else { perm.get(axis).and_then(|&p| usize::try_from(p).ok()) };
        match from {
            Some(from) => facts.same(input(0, from), output(0, axis)),
            None => facts.pin_all("its permutation is out of range"),
        }
    }
}

/// The elements in the same order in other axes.
pub(super) fn reshape(facts: &mut Facts<'_>) {
    let (before, after) = (facts.rank(Port::Input(0)), facts.rank(Port::Output(0)));
    regroup(facts, 0..before, 0..after);
}

/// Finds which runs of input axes have the elements of which runs of output axes.
fn regroup(facts: &mut Facts<'_>, before: Range<usize>, after: Range<usize>) {
    let of = |port, range: &Range<usize>| facts.dims(port).and_then(|dims| dims.get(range.clone())).unwrap_or_default();
    let (inputs, outputs) = (of(Port::Input(0), &before), of(Port::Output(0), &after));
    for (own, other) in runs(inputs, outputs) {
        let slots = |port, run: Range<usize>, start: usize| -> Vec<Slot> {
            run.map(|axis| Slot { port, axis: axis + start }).filter(|&slot| facts.size(slot) != Some(1)).collect()
        };
        let own = slots(Port::Input(0), own, before.start);
        let other = slots(Port::Output(0), other, after.start);
        match (own.as_slice(), other.as_slice()) {
            (&[a], &[b]) => facts.same(a, b),
            (&[whole], factors) | (factors, &[whole]) => fold(facts, whole, factors),
            (own, other) => {
                own.iter().chain(other).for_each(|&slot| facts.pin(slot, "it is mixed with other axes"));
            }
        }
    }
}

fn fold(facts: &mut Facts<'_>, whole: Slot, factors: &[Slot]) {
    let sized: Option<Vec<(Slot, usize)>> = factors.iter().map(|&slot| Some((slot, facts.size(slot)?))).collect();
    match sized.filter(|sized| !sized.is_empty()) {
        Some(factors) if facts.size(whole).is_some() => facts.axes.folds.push(Fold { whole, factors }),
        Some(_) | None => {
            factors.iter().chain([&whole]).for_each(|&slot| facts.pin(slot, "it is mixed with axes of unknown size"));
        }
    }
}

/// Pairs of runs of axes that hold the same number of elements, as short as can be told, from both ends to what cannot be
/// told apart.
fn runs(before: &[Dim], after: &[Dim]) -> Vec<(Range<usize>, Range<usize>)> {
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while let Some((own, other)) = run(&before[i..], &after[j..]) {
        found.push((i..i + own, j..j + other));
        (i, j) = (i + own, j + other);
    }
    let reversed = |dims: &[Dim]| dims.iter().rev().cloned().collect::<Vec<Dim>>();
    let (rest_before, rest_after) = (reversed(&before[i..]), reversed(&after[j..]));
    let (mut from_end_before, mut from_end_after) = (0, 0);
    while let Some((own, other)) = run(&rest_before[from_end_before..], &rest_after[from_end_after..]) {
        let (end, other_end) = (before.len() - from_end_before, after.len() - from_end_after);
        found.push((end - own..end, other_end - other..other_end));
        (from_end_before, from_end_after) = (from_end_before + own, from_end_after + other);
    }
    let (end, other_end) = (before.len() - from_end_before, after.len() - from_end_after);
    if i < end || j < other_end {
        found.push((i..end, j..other_end));
    }
    found
}

/// How many axes at the front of both hold the same number of elements: one of each where they are equal, else as many
/// known sizes as it takes.
fn run(before: &[Dim], after: &[Dim]) -> Option<(usize, usize)> {
    let (first, other) = (before.first()?, after.first()?);
    if first == other && *first != Dim::Unknown {
        return Some((1, 1));
    }
    let (mut own, mut others) = (1, 1);
    let (mut size, mut other_size) = (first.known()?, other.known()?);
    while size != other_size {
        if size < other_size {
            size = size.checked_mul(before.get(own)?.known()?)?;
            own += 1;
        } else {
            other_size = other_size.checked_mul(after.get(others)?.known()?)?;
            others += 1;
        }
    }
    Some((own, others))
}
