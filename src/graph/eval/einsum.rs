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
pub(crate) enum Label {
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
    let shapes: Vec<&[usize]> = operands.iter().map(|operand| operand.shape()).collect();
    let equation = Equation::read(&op.equation, &shapes)?;
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

/// An equation over operands of known shapes: the labels of every axis of the inputs and of the output, and their sizes.
#[derive(Debug)]
pub(crate) struct Equation {
    pub(crate) inputs: Vec<Vec<Label>>,
    pub(crate) output: Vec<Label>,
    pub(crate) sizes: BTreeMap<Label, usize>,
}

impl Equation {
    /// Reads an equation for operands of these shapes.
    ///
    /// # Errors
    /// When it is malformed, or does not fit them.
    pub(crate) fn read(text: &str, operands: &[&[usize]]) -> Result<Equation, EvalError> {
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
            let n_ellipsis = operand.len().checked_sub(n_letters);
            let labels = n_ellipsis.and_then(|n_ellipsis| labels(term, n_ellipsis));
            let labels = labels
                .filter(|labels| labels.len() == operand.len())
                .ok_or_else(|| refused(format!("`{term}` for shape {operand:?}")))?;
            for (label, &dim) in labels.iter().zip(operand.iter()) {
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
        let one = || Term { elements: vec![T::ONE], labels: Vec::new(), shape: Vec::new() };
        let mut product = one();
        for (position, elements) in elements.into_iter().enumerate() {
            let (labels, shape) = (self.inputs[position].clone(), operands[position].shape().to_vec());
            let operand = Term { elements, labels, shape };
            let later = || self.output.iter().chain(self.inputs[position + 1..].iter().flatten());
            // Summed first over what nothing else has, so that the product is small.
            let shared = |label: &&Label| later().chain(&product.labels).any(|other| other == *label);
            let operand = self.contract(&operand, &one(), &distinct(operand.labels.iter().filter(shared)))?;
            let all = product.labels.iter().chain(&operand.labels);
            let kept = distinct(all.filter(|&label| later().any(|other| other == label)));
            product = self.contract(&product, &operand, &kept)?;
        }
        Ok(self.contract(&product, &one(), &self.output)?.elements)
    }

    /// The product of two terms, summed over every axis that is not kept.
    fn contract<T: Number>(&self, left: &Term<T>, right: &Term<T>, kept: &[Label]) -> Result<Term<T>, EvalError> {
        let all = left.labels.iter().chain(&right.labels);
        let summed = distinct(all.filter(|label| !kept.contains(label)));
        let sizes = |labels: &[Label]| labels.iter().map(|label| self.sizes[label]).collect::<Vec<_>>();
        let (shape, summed_shape) = (sizes(kept), sizes(&summed));
        let mut elements = vec![T::ZERO; allocation(&shape)?];
        if allocation(&summed_shape)? > 0 && !elements.is_empty() {
            let (left_starts, right_starts) = (left.positions(kept, &shape), right.positions(kept, &shape));
            let left_steps = left.positions(&summed, &summed_shape);
            let right_steps = right.positions(&summed, &summed_shape);
            for (sum, (&left_start, &right_start)) in elements.iter_mut().zip(left_starts.iter().zip(&right_starts)) {
                let (left, right) = (&left.elements[left_start..], &right.elements[right_start..]);
                let pairs = left_steps.iter().zip(&right_steps);
                *sum =
                    pairs.fold(T::ZERO, |sum, (&left_at, &right_at)| sum.plus_product(left[left_at], right[right_at]));
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

#[cfg(test)]
mod tests {
    use crate::graph::eval::testing::{check, iota, list, refusal, tensor};
    use crate::graph::op::{Einsum, Op};
    use crate::graph::tensor::Tensor;

    fn einsum(equation: &str) -> Op {
        Op::Einsum(Einsum { equation: equation.to_string() })
    }

    #[test]
    fn equations_are_followed() {
        let two = || [iota(&[2, 3]), iota(&[3, 2])];
        check(einsum("ij,jk->ik"), two(), tensor(&[2, 2], [10i64, 13, 28, 40]));
        check(einsum(" ij , jk "), two(), tensor(&[2, 2], [10i64, 13, 28, 40]));
        check(einsum("ij,kl->"), two(), Tensor::scalar(225i64));
        check(einsum("ij->ji"), [iota(&[2, 3])], tensor(&[3, 2], [0i64, 3, 1, 4, 2, 5]));
        check(einsum("ba"), [iota(&[2, 3])], tensor(&[3, 2], [0i64, 3, 1, 4, 2, 5]));
        check(einsum("bA"), [iota(&[2, 3])], tensor(&[3, 2], [0i64, 3, 1, 4, 2, 5]));
        check(einsum("ii->i"), [iota(&[2, 2])], list([0, 3]));
        check(einsum("ii"), [iota(&[2, 2])], Tensor::scalar(3i64));
        check(einsum("i,i,i->i"), [list([1, 2]), list([3, 4]), list([5, 6])], list([15, 48]));
        check(einsum("...i->..."), [iota(&[2, 1, 3])], tensor(&[2, 1], [3i64, 12]));
        check(einsum("...i,...i->i..."), [iota(&[2, 2]), iota(&[2])], tensor(&[2, 2], [0i64, 0, 1, 3]));
        check(einsum("i...,i"), [iota(&[2, 2]), list([1, 10])], list([20, 31]));
        check(einsum("ij->i"), [iota(&[2, 0])], list([0, 0]));
    }

    #[test]
    fn what_is_no_equation_is_refused() {
        for equation in ["ij,jk->ik", "i", "ijk", "i.j", "ij->ik", "ij->ii", "i......j", "éj", "ij->...->", ""] {
            let problem = refusal(einsum(equation), [iota(&[2, 3])]);
            assert!(problem.starts_with(&format!("equation `{equation}`")), "{problem}");
        }
        assert!(refusal(einsum("i,i"), [list([1, 2]), list([1, 2, 3])]).contains("3 in one place and 2 in another"));
        assert_eq!(refusal(einsum("i,i"), [list([1]), Tensor::vector(vec![1f32])]), "a product of i64 and f32");
    }
}
