//! `Einsum` as products of matrices.

use super::{Lowered, Lowering};
use crate::graph::Op;
use crate::graph::eval::{Equation, Label};
use crate::learn::exec::emit::Emitter;
use crate::learn::exec::program::{Id, Reduction};

/// A value with the label of each axis, none twice.
struct Term {
    id: Id,
    labels: Vec<Label>,
}

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    let Op::Einsum(einsum) = op else { return Ok(None) };
    let operands = lowering.inputs()?;
    let program = &lowering.compiler.emitter.program;
    let shapes: Vec<&[usize]> = operands.iter().map(|&operand| program.shape(operand)).collect();
    if shapes.iter().any(|shape| shape.contains(&0)) {
        return Ok(None);
    }
    let equation = Equation::read(&einsum.equation, &shapes).map_err(|source| lowering.refused(source))?;
    let emit = lowering.emit();
    let mut product: Option<Term> = None;
    for (position, (&operand, labels)) in operands.iter().zip(&equation.inputs).enumerate() {
        let is_later = |label: &Label| {
            equation.output.contains(label) || equation.inputs[position + 1..].iter().flatten().any(|l| l == label)
        };
        let operand = distinct(emit, &equation, operand, labels);
        product = Some(match product {
            None => summed(emit, operand, is_later),
            Some(left) => {
                let right = summed(emit, operand, |label| is_later(label) || left.labels.contains(label));
                let left = summed(emit, left, |label| is_later(label) || right.labels.contains(label));
                multiplied(emit, &equation, [&left, &right], is_later)
            }
        });
    }
    let Some(product) = product else { return Ok(None) };
    let product = summed(emit, product, |label| equation.output.contains(label));
    Ok(Some(vec![ordered(emit, &product, &equation.output)]))
}

/// An operand with every axis of its full size; of a label that stands twice the diagonal.
fn distinct(emit: &mut Emitter, equation: &Equation, operand: Id, labels: &[Label]) -> Term {
    let full: Vec<usize> = labels.iter().map(|label| equation.sizes[label]).collect();
    let mut term = Term { id: emit.expand(operand, &full), labels: labels.to_vec() };
    let repeated = |labels: &[Label]| (0..labels.len()).find(|&axis| labels[axis + 1..].contains(&labels[axis]));
    while let Some(first) = repeated(&term.labels) {
        let label = term.labels[first];
        let second = first + 1 + term.labels[first + 1..].iter().position(|&l| l == label).expect("it stands twice");
        let mut order: Vec<usize> = (0..term.labels.len()).filter(|&axis| axis != first && axis != second).collect();
        order.extend([first, second]);
        let moved = emit.transpose(term.id, &order);
        let size = equation.sizes[&label];
        let mut shape = emit.shape(moved).to_vec();
        shape.truncate(order.len() - 2);
        let flat = emit.reshape(moved, &[shape.clone(), vec![size * size]].concat());
        let mut steps = vec![1; shape.len()];
        // the diagonal of a matrix lies this far apart
        steps.push(isize::try_from(size + 1).unwrap_or(isize::MAX));
        shape.push(size);
        term.id = emit.slice(flat, vec![0; shape.len()], steps, shape);
        term.labels = order[..order.len() - 1].iter().map(|&axis| term.labels[axis]).collect();
    }
    term
}

/// The sum over the axes that are not kept.
fn summed(emit: &mut Emitter, term: Term, is_kept: impl Fn(&Label) -> bool) -> Term {
    let axes: Vec<usize> = (0..term.labels.len()).filter(|&axis| !is_kept(&term.labels[axis])).collect();
    if axes.is_empty() {
        return term;
    }
    let sum = emit.reduce(Reduction::Sum, term.id, &axes);
    let kept: Vec<usize> = (0..term.labels.len()).filter(|axis| !axes.contains(axis)).collect();
    let shape: Vec<usize> = kept.iter().map(|&axis| emit.shape(sum)[axis]).collect();
    Term { id: emit.reshape(sum, &shape), labels: kept.into_iter().map(|axis| term.labels[axis]).collect() }
}

/// The axes in this order.
fn ordered(emit: &mut Emitter, term: &Term, labels: &[Label]) -> Id {
    let axis = |label: &Label| term.labels.iter().position(|own| own == label).expect("the term has the label");
    let order: Vec<usize> = labels.iter().map(axis).collect();
    emit.transpose(term.id, &order)
}

/// The product of two terms, summed over what both have and nothing later does.
fn multiplied(
    emit: &mut Emitter,
    equation: &Equation,
    [left, right]: [&Term; 2],
    is_later: impl Fn(&Label) -> bool,
) -> Term {
    let both = |label: &&Label| left.labels.contains(label) && right.labels.contains(label);
    let shared: Vec<Label> = left.labels.iter().filter(both).copied().collect();
    let (batch, inner): (Vec<Label>, Vec<Label>) = shared.iter().partition(|label| is_later(label));
    let own =
        |term: &Term| -> Vec<Label> { term.labels.iter().filter(|label| !shared.contains(label)).copied().collect() };
    let (rows, columns) = (own(left), own(right));
    let sizes = |labels: &[Label]| labels.iter().map(|label| equation.sizes[label]).collect::<Vec<_>>();
    let n = |labels: &[Label]| sizes(labels).iter().product::<usize>();
    let a = ordered(emit, left, &[&batch[..], &rows, &inner].concat());
    let b = ordered(emit, right, &[&batch[..], &inner, &columns].concat());
    let labels = [&batch[..], &rows, &columns].concat();
    let product = if inner.is_empty() {
        let a = emit.reshape(a, &[n(&batch), n(&rows), 1]);
        let b = emit.reshape(b, &[n(&batch), 1, n(&columns)]);
        emit.mul(a, b)
    } else if batch.is_empty() {
        let a = emit.reshape(a, &[n(&rows), n(&inner)]);
        let b = emit.reshape(b, &[n(&inner), n(&columns)]);
        emit.matmul(a, b, false, false)
    } else {
        let a = emit.reshape(a, &[n(&batch), n(&rows), n(&inner)]);
        let b = emit.reshape(b, &[n(&batch), n(&inner), n(&columns)]);
        emit.matmul(a, b, false, false)
    };
    Term { id: emit.reshape(product, &sizes(&labels)), labels }
}
