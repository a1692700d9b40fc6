//! The notation of `Einsum`: `bij, bjk -> bik`, with `...` for any leading dimensions.

use std::collections::BTreeMap;

use super::dims::{self, agree, text};
use super::fact::{Problem, problem};
use crate::graph::Dim;

/// One place of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// A dimension.
    Letter(char),
    /// Any number of dimensions, broadcast.
    Ellipsis,
}

/// An equation taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notation {
    /// A term for each input.
    pub(super) inputs: Vec<Vec<Label>>,
    /// The term of the output, derived where the equation has none.
    pub(super) output: Vec<Label>,
}

/// The dimensions that the labels stand for.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// of each letter
    pub(super) letters: BTreeMap<char, Dim>,
    /// of the ellipsis
    pub(super) ellipsis: Vec<Dim>,
}

impl Notation {
    /// Takes an equation apart.
    ///
    /// # Errors
    /// When it has other signs than letters, `,`, `...` and one `->`, or the output a letter that no input has.
    pub(super) fn parse(equation: &str) -> Result<Notation, Problem> {
        let compact: String = equation.chars().filter(|sign| !sign.is_whitespace()).collect();
        let (left, right) = match compact.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (compact.as_str(), None),
        };
        let inputs: Vec<Vec<Label>> = left.split(',').map(term).collect::<Option<_>>().ok_or_else(|| bad(equation))?;
        let output = match right {
            Some(right) => term(right).ok_or_else(|| bad(equation))?,
            None => implied(&inputs),
        };
        let known = |label: &Label| inputs.iter().flatten().any(|other| other == label);
        if !output.iter().all(|label| *label == Label::Ellipsis || known(label)) {
            return Err(bad(equation));
        }
        Ok(Notation { inputs, output })
    }

    /// The dimensions of the labels over inputs of these shapes.
    ///
    /// # Errors
    /// When a label stands for two different numbers, or a term does not fit its input.
    pub(super) fn sizes(&self, shapes: &[&[Dim]]) -> Result<Sizes, Problem> {
        if shapes.len() != self.inputs.len() {
            return Err(problem("the number of inputs", self.inputs.len(), shapes.len()));
        }
        let mut sizes = Sizes::default();
        for (term, shape) in self.inputs.iter().zip(shapes) {
            sizes.add(term, shape)?;
        }
        Ok(sizes)
    }
}

impl Sizes {
    fn add(&mut self, term: &[Label], shape: &[Dim]) -> Result<(), Problem> {
        let n_letters = term.iter().filter(|&&label| label != Label::Ellipsis).count();
        let misfit = || problem("an input of the equation", format!("of {n_letters} dimensions"), text(shape));
        let n_rest = shape.len().checked_sub(n_letters).ok_or_else(misfit)?;
        if n_rest > 0 && n_letters == term.len() {
            return Err(misfit());
        }
        let mut rest = shape;
        for label in term {
            let (here, after) = rest.split_at(if *label == Label::Ellipsis { n_rest } else { 1 });
            rest = after;
            match label {
                Label::Ellipsis => {
                    let joined = dims::broadcast(Some(&self.ellipsis), Some(here))?;
                    self.ellipsis = joined.unwrap_or_default();
                }
                Label::Letter(letter) => {
                    let dim = self.letters.entry(*letter).or_insert(Dim::Unknown);
                    *dim = same_or_one(dim, &here[0])
                        .ok_or_else(|| problem(format!("the dimension `{letter}`"), &*dim, &here[0]))?;
                }
            }
        }
        Ok(())
    }
}

/// A dimension of 1 is broadcast here, too.
fn same_or_one(a: &Dim, b: &Dim) -> Option<Dim> {
    agree(a, b).or_else(|| [(a, b), (b, a)].into_iter().find(|(one, _)| one.known() == Some(1)).map(|(_, d)| d.clone()))
}

fn bad(equation: &str) -> Problem {
    problem("the equation", "letters, `,`, `...` and one `->`", equation)
}

fn term(text: &str) -> Option<Vec<Label>> {
    let mut labels = Vec::new();
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if labels.contains(&Label::Ellipsis) {
                return None;
            }
            labels.push(Label::Ellipsis);
            rest = after;
        } else if sign.is_ascii_alphabetic() {
            labels.push(Label::Letter(sign));
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(labels)
}

/// The ellipsis, then the letters that occur once, in order of the alphabet.
fn implied(inputs: &[Vec<Label>]) -> Vec<Label> {
    let mut n_times: BTreeMap<Label, usize> = BTreeMap::new();
    for &label in inputs.iter().flatten() {
        *n_times.entry(label).or_default() += 1;
    }
    let ellipsis = n_times.remove(&Label::Ellipsis).map(|_| Label::Ellipsis);
    ellipsis.into_iter().chain(n_times.into_iter().filter(|&(_, n)| n == 1).map(|(label, _)| label)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(equation: &str, shapes: &[&[usize]], expected: &str) {
        let shapes: Vec<Vec<Dim>> = shapes.iter().map(|s| s.iter().copied().map(Dim::from).collect()).collect();
        let borrowed: Vec<&[Dim]> = shapes.iter().map(Vec::as_slice).collect();
        let result = Notation::parse(equation).and_then(|notation| {
            let sizes = notation.sizes(&borrowed)?;
            let dims = notation.output.iter().flat_map(|label| match label {
                Label::Letter(letter) => vec![sizes.letters[letter].clone()],
                Label::Ellipsis => sizes.ellipsis.clone(),
            });
            Ok(text(&dims.collect::<Vec<_>>()))
        });
        let shown = result.unwrap_or_else(|p| format!("{} should be {}, got {}", p.what, p.expected, p.got));
        assert_eq!(shown, expected, "{equation}");
    }

    #[test]
    fn terms_make_the_output() {
        check("bij, bjk -> bik", &[&[2, 3, 4], &[2, 4, 5]], "[2, 3, 5]");
        check("ij,jk", &[&[3, 4], &[4, 5]], "[3, 5]");
        check("...ij,...jk->...ik", &[&[7, 1, 3, 4], &[6, 4, 5]], "[7, 6, 3, 5]");
        check("ii->i", &[&[3, 3]], "[3]");
        check("i->", &[&[3]], "[]");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        check("ij,jk->ik", &[&[3, 4], &[5, 6]], "the dimension `j` should be 4, got 5");
        check("ij->ij", &[&[3]], "an input of the equation should be of 2 dimensions, got [3]");
        check("ij->k", &[&[3, 3]], "the equation should be letters, `,`, `...` and one `->`, got ij->k");
    }
}
