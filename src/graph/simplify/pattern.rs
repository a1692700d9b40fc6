//! Patterns of nodes, written like the formulas that they compute.
//!
//! ```text
//! let x = value("x");
//! let softsign = x.clone() / (node("Abs", [x]) + 1.0);
//! ```
//!
//! The operands of `Add`, `Mul`, `Max` and `Min` are tried in both orders; how a formula associates is written out.

use std::ops::{Add, Div, Mul, Sub};

use super::View;
use super::constants::scalar;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Reader;
use crate::graph::{Name, Node};

/// What a value is to be.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Any value; the same one wherever this name stands.
    Value(&'static str),
    /// Any value, whether it stands elsewhere or not.
    Any,
    /// A constant of one element that is this number, as far as its type can hold it.
    Number(f64),
    /// Any constant of one element.
    Scalar(&'static str),
    /// What the operator of this name computes of these inputs.
    Node(&'static str, Vec<Pattern>),
    /// What one of these says.
    OneOf(Vec<Pattern>),
}

/// Where a pattern was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Match {
    values: Vec<(&'static str, Name)>,
    scalars: Vec<(&'static str, f64)>,
    /// The nodes, that which computes the whole first.
    pub(super) nodes: Vec<usize>,
}

/// Any value; the same one wherever this name stands.
pub(super) fn value(name: &'static str) -> Pattern {
    Pattern::Value(name)
}

/// What the operator of this name computes of these inputs.
pub(super) fn node<const N: usize>(operator: &'static str, inputs: [Pattern; N]) -> Pattern {
    Pattern::Node(operator, inputs.into())
}

/// What one of these says; the first that fits counts.
pub(super) fn one_of<const N: usize>(patterns: [Pattern; N]) -> Pattern {
    Pattern::OneOf(patterns.into())
}

/// `factor · a · b`, however it associates, the factor multiplied with or its reciprocal divided by.
pub(super) fn product(a: &Pattern, b: &Pattern, factor: f64) -> Pattern {
    let times = |pattern: Pattern| one_of([pattern.clone() * factor, pattern / factor.recip()]);
    one_of([times(a.clone()) * b.clone(), a.clone() * times(b.clone()), times(a.clone() * b.clone())])
}

impl Pattern {
    /// Where the node at this position computes it.
    pub(super) fn find(&self, view: &View<'_>, node_idx: usize) -> Option<Match> {
        let output = view.graph.nodes.get(node_idx)?.output(0)?;
        solve(view, vec![(self, output)], Match::default())
    }
}

impl Match {
    /// The value of this name.
    pub(super) fn value(&self, name: &str) -> Option<&Name> {
        self.values.iter().find(|(bound, _)| *bound == name).map(|(_, value)| value)
    }

    /// The constant of this name.
    pub(super) fn scalar(&self, name: &str) -> Option<f64> {
        self.scalars.iter().find(|(bound, _)| *bound == name).map(|(_, number)| *number)
    }

    /// The nodes of this operator.
    pub(super) fn of<'a>(&self, view: &View<'a>, operator: &str) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter_map(|&idx| view.graph.nodes.get(idx)).filter(move |node| node.op.name() == operator)
    }
}

/// Whether what these nodes compute, the `last` one aside, is read by them alone.
///
/// # Errors
/// Names what is read elsewhere.
pub(super) fn expect_closed(view: &View<'_>, nodes: &[usize], last: usize) -> Result<(), String> {
    for node in nodes.iter().filter(|&&idx| idx != last).filter_map(|&idx| view.graph.nodes.get(idx)) {
        for output in node.outputs.iter().flatten() {
            let inside = |reader: &Reader| nodes.contains(&reader.node_idx);
            if view.uses.is_output(output) || !view.uses.readers(output).iter().all(inside) {
                return Err(format!("`{output}` is read elsewhere, too"));
            }
        }
    }
    Ok(())
}

/// Goes through what is still to be shown, and comes back to another order or alternative where one leads nowhere.
fn solve(view: &View<'_>, mut open: Vec<(&Pattern, &Name)>, mut found: Match) -> Option<Match> {
    let Some((pattern, name)) = open.pop() else { return Some(found) };
    match pattern {
        Pattern::Any => solve(view, open, found),
        Pattern::Value(key) => {
            match found.value(key) {
                Some(bound) if bound != name => return None,
                Some(_) => {}
                None => found.values.push((key, name.clone())),
            }
            solve(view, open, found)
        }
        Pattern::Number(number) if is_near(view, name, *number) => solve(view, open, found),
        Pattern::Number(_) => None,
        Pattern::Scalar(key) => {
            let number = scalar(view, name)?;
            if found.scalar(key).is_some_and(|bound| bound != number) {
                return None;
            }
            found.scalars.push((key, number));
            solve(view, open, found)
        }
        Pattern::OneOf(patterns) => patterns.iter().find_map(|pattern| {
            let open = open.iter().copied().chain([(pattern, name)]).collect();
            solve(view, open, found.clone())
        }),
        Pattern::Node(operator, patterns) => {
            let node_idx = view.uses.producer_idx(name)?;
            let node = view.graph.nodes.get(node_idx)?;
            let inputs: Vec<&Name> = node.inputs.iter().map(Option::as_ref).collect::<Option<_>>()?;
            let fits = node.op.name() == *operator && node.op.domain().is_empty() && inputs.len() == patterns.len();
            if !fits || node.output(0) != Some(name) {
                return None;
            }
            if !found.nodes.contains(&node_idx) {
                found.nodes.push(node_idx);
            }
            let with = |inputs: &[&Name]| {
                // what stands first is looked at first
                let goals = patterns.iter().rev().zip(inputs.iter().rev().copied());
                solve_with(view, &open, goals, found.clone())
            };
            let swapped = || match (*operator, &inputs[..]) {
                ("Add" | "Mul" | "Max" | "Min", [a, b]) => with(&[b, a]),
                _ => None,
            };
            with(&inputs).or_else(swapped)
        }
    }
}

fn solve_with<'p, 'n>(
    view: &View<'_>,
    open: &[(&'p Pattern, &'n Name)],
    goals: impl Iterator<Item = (&'p Pattern, &'n Name)>,
    found: Match,
) -> Option<Match> {
    solve(view, open.iter().copied().chain(goals).collect(), found)
}

/// Exporters write such constants with six digits or more; narrow types hold fewer.
fn is_near(view: &View<'_>, name: &str, number: f64) -> bool {
    let tolerance = match view.constant(name).map(Tensor::dtype) {
        Some(DType::F16) => 1e-3,
        Some(DType::BF16) => 8e-3,
        _ => 3e-6,
    };
    scalar(view, name).is_some_and(|found| (found - number).abs() <= tolerance * number.abs())
}

impl From<f64> for Pattern {
    fn from(number: f64) -> Pattern {
        Pattern::Number(number)
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident),*) => {$(
        impl<P: Into<Pattern>> $trait<P> for Pattern {
            type Output = Pattern;

            fn $method(self, other: P) -> Pattern {
                Pattern::Node(stringify!($trait), vec![self, other.into()])
            }
        }
    )*};
}
operators!(Add add, Sub sub, Mul mul, Div div);

#[cfg(test)]
mod tests {
    use super::super::testing::Net;
    use super::super::{Options, View};
    use super::*;
    use crate::graph::Op;
    use crate::graph::shape::{Bindings, infer};
    use crate::graph::uses::Uses;

    /// Whether a pattern stands in `x · |x + 1| / |x + 1|`, the two sums being different nodes.
    fn check(pattern: &Pattern, expected: bool) {
        let mut net = Net::new(1);
        let x = net.input(&[3]);
        let one = net.scalar(1.0);
        let a = net.node(Op::Add, &[&x, &one]);
        let b = net.node(Op::Add, &[&one, &x]);
        let (a, b) = (net.node(Op::Abs, &[&a]), net.node(Op::Abs, &[&b]));
        let y = net.node(Op::Mul, &[&a, &x]);
        let y = net.node(Op::Div, &[&y, &b]);
        let graph = net.finish(&y);
        let types = infer(&graph, &Bindings::default()).expect("shapes fit");
        let view =
            View { graph: &graph, types: &types, uses: Uses::of(&graph), options: &Options::default(), around: None };
        assert_eq!(pattern.find(&view, graph.nodes.len() - 1).is_some(), expected, "{pattern:?}");
    }

    #[test]
    fn formulas_are_found_in_either_order_of_operands() {
        let x = || value("x");
        let magnitude = |number: f64| node("Abs", [x() + number]);
        check(&(x() * magnitude(1.0) / magnitude(1.0)), true);
        check(&(magnitude(1.0) * x() / magnitude(1.0)), true);
        check(&(magnitude(1.0) * x() / magnitude(1.000_001)), true);
        check(&(magnitude(1.0) * x() / magnitude(1.1)), false);
        check(&(magnitude(1.0) / (x() * magnitude(1.0))), false);
        check(&(x() * magnitude(1.0) / x()), false);
        check(&(x() * value("y") / value("y")), false);
        check(&(x() * Pattern::Any / one_of([x(), magnitude(1.0)])), true);
        check(&(x() * node("Abs", [Pattern::Scalar("one") + value("z")]) / Pattern::Any), true);
    }
}
