//! Einsum: sums of products over named axes.

use std::collections::BTreeMap;

use super::args::{Args, allocation};
use super::numbers::Numbers;
use super::product::Number;
use super::shapes::strides;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;

/// What an axis is called: a letter of the equation, or a place in the ellipsis, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// The elements of an operand, or of a product of operands, with the label and size of each axis.
struct Term<T> {
    elements: Vec<T>,
    labels: Vec<Label>,
    shape: Vec<usize>,
}

pub(super) fn einsum(args: Args<'_>, op: &op::Einsum) -> Result<Tensor, EvalError> {
    let operands: Vec<&Tensor> = args.all().collect();
    let first = operands.first().ok_or_else(|| invalid("nothing to multiply"))?;
    if let Some(other) = operands.iter().find(|operand| operand.dtype() != first.dtype()) {
        return Err(invalid(format!("a product of {} and {}", first.dtype(), other.dtype())));
    }
    let equation = Equation::read(&op.equation, &operands)?;
    let shape: Vec<usize> = equation.output.iter().map(|label| equation.sizes[label]).collect();
    allocation(&shape)?;
    let sums = match Numbers::of(first)? {
        Numbers::Float(_) => {
            let floats = operands.iter().map(|operand| Numbers::floats(operand)).collect::<Result<_, _>>()?;
            Numbers::Float(equation.sums(floats, &operands)?)
        }
        Numbers::Int(_) => {
            let ints = operands.iter().map(|operand| Numbers::ints(operand)).collect::<Result<_, _>>()?;
            Numbers::Int(equation.sums(ints, &operands)?)
        }
    };
    sums.into_tensor(first.dtype(), &shape)
}

#[derive(Debug)]
struct Equation {
    inputs: Vec<Vec<Label>>,
    output: Vec<Label>,
    sizes: BTreeMap<Label, usize>,
}

impl Equation {
    fn read(text: &str, operands: &[&Tensor]) -> Result<Equation, EvalError> {
        let refused = |problem: String| invalid(format!("equation `{text}`: {problem}"));
        let spaceless: String = text.chars().filter(|c| *c != ' ').collect();
        let (left, right) = match spaceless.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (spaceless.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != operands.len() {
            return Err(refused(format!("{} terms for {} inputs", terms.len(), operands.len())));
        }
        let mut inputs = Vec::new();
        let mut sizes: BTreeMap<Label, usize> = BTreeMap::new();
        for (term, operand) in terms.into_iter().zip(operands) {
            let n_letters = term.chars().filter(char::is_ascii_alphabetic).count();
            let n_ellipsis = operand.rank().checked_sub(n_letters);
            let labels = n_ellipsis.and_then(|n_ellipsis| labels(term, n_ellipsis));
            let labels = labels
                .filter(|labels| labels.len() == operand.rank())
                .ok_or_else(|| refused(format!("`{term}` for shape {:?}", operand.shape())))?;
            for (label, &dim) in labels.iter().zip(operand.shape()) {
                let size = sizes.entry(*label).or_insert(dim);
                if *size == 1 {
                    *size = dim;
                } else if dim != 1 && dim != *size {
                    return Err(refused(format!("an axis is {dim} in one place and {size} in another")));
                }
            }
            inputs.push(labels);
        }
        let n_ellipsis = sizes.keys().filter(|label| matches!(label, Label::Ellipsis(_))).count();
        let output = match right {
            Some(term) => labels(term, n_ellipsis).ok_or_else(|| refused(format!("`{term}`")))?,
            None => implicit_output(&inputs, n_ellipsis),
        };
        let known = output.iter().all(|label| sizes.contains_key(label));
        if !known || output.iter().enumerate().any(|(position, label)| output[..position].contains(label)) {
            return Err(refused("the output has an axis twice, or one that no input has".to_string()));
        }
        Ok(Equation { inputs, output, sizes })
    }

    fn sums<T: Number>(&self, elements: Vec<Vec<T>>, operands: &[&Tensor]) -> Result<Vec<T>, EvalError> {
        let mut product = Term { elements: vec![T::ONE], labels: Vec::new(), shape: Vec::new() };
        for (position, elements) in elements.into_iter().enumerate() {
            let labels = self.inputs[position].clone();
            let operand = Term { elements, labels, shape: operands[position].shape().to_vec() };
            let later = self.inputs[position + 1..].iter().flatten();
            // Every operand is first reduced to what the output or another operand needs, so that the products are small.
            let alone =
                |label: &Label| self.output.contains(label) || later.clone().chain(&product.labels).any(|l| l == label);
            let operand = self.contract(&[&operand], &distinct(operand.labels.iter().filter(|&l| alone(l))))?;
            let needed = |label: &Label| self.output.contains(label) || later.clone().any(|other| other == label);
            let kept = distinct(product.labels.iter().chain(&operand.labels).filter(|&label| needed(label)));
            product = self.contract(&[&product, &operand], &kept)?;
        }
        Ok(self.contract(&[&product], &self.output)?.elements)
    }

    /// The product of the terms, summed over every axis that is not kept.
    fn contract<T: Number>(&self, terms: &[&Term<T>], kept: &[Label]) -> Result<Term<T>, EvalError> {
        let all = terms.iter().flat_map(|term| &term.labels);
        let summed = distinct(all.filter(|label| !kept.contains(label)));
        let sizes = |labels: &[Label]| labels.iter().map(|label| self.sizes[label]).collect::<Vec<_>>();
        let (shape, summed_shape) = (sizes(kept), sizes(&summed));
        let n_kept = allocation(&shape)?;
        let n_summed = allocation(&summed_shape)?;
        if n_kept == 0 || n_summed == 0 {
            return Ok(Term { elements: vec![T::ZERO; n_kept], labels: kept.to_vec(), shape });
        }
        let mut elements = vec![T::ZERO; n_kept];
        let starts: Vec<Vec<usize>> = terms.iter().map(|term| term.positions(kept, &shape)).collect();
        let steps: Vec<Vec<usize>> = terms.iter().map(|term| term.positions(&summed, &summed_shape)).collect();
        for (number, sum) in elements.iter_mut().enumerate() {
            let factor = |term: usize, step: usize| terms[term].elements[starts[term][number] + steps[term][step]];
            for step in 0..n_summed {
                let (left, right) = (factor(0, step), if terms.len() > 1 { factor(1, step) } else { T::ONE });
                *sum = sum.plus_product(left, right);
            }
        }
        Ok(Term { elements, labels: kept.to_vec(), shape })
    }
}

impl<T> Term<T> {
    /// For all coordinates along axes of these labels and sizes, row-major, how far they lead into the elements.
    fn positions(&self, labels: &[Label], shape: &[usize]) -> Vec<usize> {
        let own_steps = strides(&self.shape);
        let mut positions = vec![0];
        for (label, &dim) in labels.iter().zip(shape) {
            let own = self.labels.iter().enumerate().filter(|(axis, own)| *own == label && self.shape[*axis] != 1);
            // A label that stands twice walks the diagonal.
            let step: usize = own.map(|(axis, _)| own_steps[axis]).sum();
            positions = positions.iter().flat_map(|&start| (0..dim).map(move |idx| start + idx * step)).collect();
        }
        positions
    }
}

/// The labels of a term; none where it is malformed.
fn labels(term: &str, n_ellipsis: usize) -> Option<Vec<Label>> {
    let letters = |text: &str| {
        let letter = |c: char| c.is_ascii_alphabetic().then_some(Label::Letter(c));
        text.chars().map(letter).collect::<Option<Vec<_>>>()
    };
    let Some((before, after)) = term.split_once("...") else {
        return letters(term);
    };
    let ellipsis = (0..n_ellipsis).rev().map(Label::Ellipsis).collect();
    Some([letters(before)?, ellipsis, letters(after)?].concat())
}

/// The ellipsis, then the letters that occur once, by their code.
fn implicit_output(inputs: &[Vec<Label>], n_ellipsis: usize) -> Vec<Label> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for label in inputs.iter().flatten() {
        if let Label::Letter(letter) = label {
            *counts.entry(*letter).or_default() += 1;
        }
    }
    let once = counts.into_iter().filter(|&(_, count)| count == 1).map(|(letter, _)| Label::Letter(letter));
    (0..n_ellipsis).rev().map(Label::Ellipsis).chain(once).collect()
}

fn distinct<'a>(labels: impl Iterator<Item = &'a Label>) -> Vec<Label> {
    let mut distinct = Vec::new();
    for label in labels {
        if !distinct.contains(label) {
            distinct.push(*label);
        }
    }
    distinct
}
