//! What every graph must keep to, whatever its operators compute: names, order, arity.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::op::Occurs;
use super::{Graph, GraphParts, Name, Node};

/// Why parts do not make a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A node or an output reads a value that nothing produces.
    #[error("{reader} reads `{name}`, which no input, initializer or node produces")]
    Dangling {
        /// who reads
        reader: String,
        /// what
        name: Name,
    },
    /// Two inputs, initializers or nodes produce the same value.
    #[error("`{name}` is produced twice: by {first} and by {second}")]
    ProducedTwice {
        /// the value
        name: Name,
        /// one producer
        first: String,
        /// the other
        second: String,
    },
    /// Nodes wait for one another.
    #[error("{node} depends on its own output: the graph has a cycle")]
    Cycle {
        /// one node of the cycle
        node: String,
    },
    /// Too many or too few inputs or outputs, or a required one left out.
    #[error("{node}: {problem}")]
    Arity {
        /// the node
        node: String,
        /// what is wrong
        problem: String,
    },
    /// A branch or body defines a name that the graph around it has too.
    #[error("{node}: its body defines `{name}`, which the graph around it has already")]
    Shadowed {
        /// the node with the body
        node: String,
        /// the name
        name: Name,
    },
    /// A value has no name.
    #[error("{place} has an empty name")]
    Unnamed {
        /// where
        place: String,
    },
    /// A list states a value that the graph does not have.
    #[error("`{name}` is listed as overridable but is no initializer")]
    NotInitializer {
        /// the name
        name: Name,
    },
}

/// Checks the parts, sorts the nodes where they are out of order, and returns the names that nothing here produces.
pub(super) fn check(parts: &mut GraphParts) -> Result<BTreeSet<Name>, CheckError> {
    for node in &parts.nodes {
        check_arity(node)?;
    }
    let producers = producers(parts)?;
    if let Some(name) = parts.overridable.iter().find(|&name| !parts.initializers.contains_key(name)) {
        return Err(CheckError::NotInitializer { name: name.clone() });
    }
    let captures = captures(parts, &producers);
    check_bodies(parts, &producers)?;
    sort(parts, &producers)?;
    Ok(captures)
}

/// The error for a whole network in which something reads `name` although nothing produces it.
pub(super) fn dangling(graph: &Graph, name: &Name) -> CheckError {
    let node = graph.nodes.iter().find(|node| node.reads().any(|read| read == name));
    let reader = node.map_or_else(|| "the list of outputs".to_string(), Node::label);
    CheckError::Dangling { reader, name: name.clone() }
}

fn check_arity(node: &Node) -> Result<(), CheckError> {
    let Some(signature) = node.op.signature() else {
        return Ok(());
    };
    let inputs: Vec<_> = signature.inputs().collect();
    let outputs: Vec<_> = signature.outputs().collect();
    let problem =
        arity_problem("input", &node.inputs, &inputs).or_else(|| arity_problem("output", &node.outputs, &outputs));
    match problem {
        Some(problem) => Err(CheckError::Arity { node: node.label(), problem }),
        None => Ok(()),
    }
}

fn arity_problem(kind: &str, actual: &[Option<Name>], formals: &[(&str, Occurs)]) -> Option<String> {
    for (position, &(formal, occurs)) in formals.iter().enumerate() {
        let given = actual.get(position).is_some_and(Option::is_some);
        let least = match occurs {
            Occurs::Once if !given => return Some(format!("{kind} `{formal}` is missing")),
            Occurs::Once | Occurs::Optional => continue,
            Occurs::Many(least) => least,
        };
        let n_given = actual.len().saturating_sub(position);
        if n_given < least {
            return Some(format!("takes at least {least} `{formal}`, got {n_given}"));
        }
    }
    let endless = formals.last().is_some_and(|&(_, occurs)| matches!(occurs, Occurs::Many(_)));
    if !endless && actual.len() > formals.len() {
        return Some(format!("takes at most {} {kind}s, got {}", formals.len(), actual.len()));
    }
    None
}

/// Where every value of the graph itself comes from: none for inputs and constants, else the node's position.
fn producers(parts: &GraphParts) -> Result<HashMap<Name, Option<usize>>, CheckError> {
    let mut producers = HashMap::new();
    let inputs = parts.inputs.iter().map(|input| &input.name);
    let constants = parts.initializers.keys().chain(parts.sparse_initializers.keys());
    let outputs = parts
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(idx, node)| node.outputs.iter().flatten().map(move |name| (name, Some(idx))));
    for (name, producer) in inputs.chain(constants).map(|name| (name, None)).chain(outputs) {
        let place = |producer: Option<usize>| {
            producer.map_or_else(|| "an input or initializer".to_string(), |idx| parts.nodes[idx].label())
        };
        if name.is_empty() {
            return Err(CheckError::Unnamed { place: place(producer) });
        }
        if let Some(first) = producers.insert(name.clone(), producer) {
            return Err(CheckError::ProducedTwice { name: name.clone(), first: place(first), second: place(producer) });
        }
    }
    Ok(producers)
}

fn captures(parts: &GraphParts, producers: &HashMap<Name, Option<usize>>) -> BTreeSet<Name> {
    let reads = parts.nodes.iter().flat_map(Node::reads);
    let outputs = parts.outputs.iter().map(|output| &output.name);
    reads.chain(outputs).filter(|&name| !producers.contains_key(name)).cloned().collect()
}

/// Names are one scope through all the bodies: a body may not define what a graph around it has.
fn check_bodies(parts: &GraphParts, producers: &HashMap<Name, Option<usize>>) -> Result<(), CheckError> {
    for node in &parts.nodes {
        for body in node.op.bodies() {
            if let Some(name) = defined_inside(body).into_iter().find(|name| producers.contains_key(name)) {
                return Err(CheckError::Shadowed { node: node.label(), name });
            }
        }
    }
    Ok(())
}

fn defined_inside(body: &Graph) -> HashSet<Name> {
    let inner = body.nodes.iter().flat_map(|node| node.op.bodies()).flat_map(defined_inside);
    body.value_names().cloned().chain(inner).collect()
}

/// Kahn's algorithm, always taking the first node that is ready: a sorted list stays as it is.
fn sort(parts: &mut GraphParts, producers: &HashMap<Name, Option<usize>>) -> Result<(), CheckError> {
    let n_nodes = parts.nodes.len();
    let mut n_waiting_for = vec![0usize; n_nodes];
    let mut readers = vec![Vec::new(); n_nodes];
    let mut sorted_already = true;
    for (idx, node) in parts.nodes.iter().enumerate() {
        for producer in node.reads().filter_map(|name| producers.get(name).copied().flatten()) {
            sorted_already &= producer < idx;
            n_waiting_for[idx] += 1;
            readers[producer].push(idx);
        }
    }
    if sorted_already {
        return Ok(());
    }
    let mut ready: BTreeSet<usize> = (0..n_nodes).filter(|&idx| n_waiting_for[idx] == 0).collect();
    let mut order = Vec::with_capacity(n_nodes);
    while let Some(idx) = ready.pop_first() {
        order.push(idx);
        for &reader in &readers[idx] {
            n_waiting_for[reader] -= 1;
            if n_waiting_for[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    if let Some(stuck) = (0..n_nodes).find(|&idx| n_waiting_for[idx] > 0) {
        return Err(CheckError::Cycle { node: parts.nodes[stuck].label() });
    }
    let mut nodes: Vec<Option<Node>> = std::mem::take(&mut parts.nodes).into_iter().map(Some).collect();
    parts.nodes = order.into_iter().filter_map(|idx| nodes[idx].take()).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::{Concat, If};
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{GraphBuilder, Op, TensorType, ValueInfo};

    fn names(list: &[&str]) -> Vec<Option<Name>> {
        list.iter().map(|&name| (!name.is_empty()).then(|| name.into())).collect()
    }

    /// `inputs -> outputs` of each node, in order; `x` is the input, `y` the output.
    fn parts(nodes: &[(Op, &[&str], &[&str])]) -> GraphParts {
        GraphParts {
            inputs: vec![ValueInfo::new("x", TensorType::new(DType::F32, [1usize]))],
            outputs: vec![ValueInfo::untyped("y")],
            nodes: nodes
                .iter()
                .map(|(op, inputs, outputs)| Node::new(op.clone(), names(inputs), names(outputs)))
                .collect(),
            ..GraphParts::default()
        }
    }

    fn refusal(nodes: &[(Op, &[&str], &[&str])]) -> String {
        Graph::new(parts(nodes)).expect_err("refused").to_string()
    }

    #[test]
    fn nodes_out_of_order_are_sorted_and_otherwise_keep_their_order() {
        let graph =
            Graph::new(parts(&[(Op::Neg, &["b"], &["y"]), (Op::Abs, &["x"], &["unused"]), (Op::Exp, &["x"], &["b"])]));
        let graph = graph.expect("no cycle");
        let order: Vec<&str> = graph.nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(order, ["Abs", "Exp", "Neg"]);
    }

    #[test]
    fn what_is_no_graph_is_refused_by_name() {
        assert_eq!(
            refusal(&[(Op::Neg, &["z"], &["y"])]),
            "Neg `y` reads `z`, which no input, initializer or node produces"
        );
        assert_eq!(
            refusal(&[(Op::Neg, &["x"], &["z"])]),
            "the list of outputs reads `y`, which no input, initializer or node produces"
        );
        assert_eq!(
            refusal(&[(Op::Neg, &["x"], &["y"]), (Op::Abs, &["x"], &["y"])]),
            "`y` is produced twice: by Neg `y` and by Abs `y`"
        );
        assert_eq!(
            refusal(&[(Op::Add, &["x", "y"], &["z"]), (Op::Neg, &["z"], &["y"])]),
            "Add `z` depends on its own output: the graph has a cycle"
        );
        assert_eq!(refusal(&[(Op::Add, &["x"], &["y"])]), "Add `y`: input `B` is missing");
        assert_eq!(refusal(&[(Op::Add, &["x", "x", "x"], &["y"])]), "Add `y`: takes at most 2 inputs, got 3");
        assert_eq!(
            refusal(&[(Op::Concat(Concat { axis: 0 }), &[], &["y"])]),
            "Concat `y`: takes at least 1 `inputs`, got 0"
        );
    }

    #[test]
    fn a_body_captures_but_does_not_shadow() {
        let branch = |inner: &str| {
            let mut builder = GraphBuilder::new("branch");
            builder.push(Node::new(Op::Neg, names(&["x"]), names(&[inner])));
            builder.output(&inner.into());
            builder.finish_body().expect("a body may capture")
        };
        let network = |inner: &str| {
            let mut builder = GraphBuilder::new("network");
            builder.input("x", TensorType::new(DType::F32, [1usize]));
            let condition = builder.initializer("condition", Tensor::scalar(true));
            let op = Op::If(If { then_branch: branch(inner), else_branch: branch("other") });
            let y = builder.node(op, &[&condition]);
            builder.output(&y);
            builder.finish()
        };
        assert_eq!(network("inner").map(|graph| graph.captures().len()), Ok(0));
        assert!(matches!(network("condition"), Err(CheckError::Shadowed { .. })));
        let captured: Vec<String> = branch("inner").captures().iter().map(Name::to_string).collect();
        assert_eq!(captured, ["x"]);
    }
}
