//! Which groups patterns mean.

use super::PruneError;
use crate::graph::spelling::matches;
use crate::graph::structure::groups::{Group, Groups, Role};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};

/// For each group whether it may lose units: one that `only` means, or any where that is empty, and that `exclude` does not
/// mean.
///
/// A pattern means a group by a weight that makes its units, or by the node that such a weight belongs to: an operator, or,
/// with `*` for any text, a name, that of a node or of what it makes.
///
/// # Errors
/// When a pattern means nothing in the network, and when no group is left.
pub fn asked(graph: &Graph, groups: &Groups, only: &[String], exclude: &[String]) -> Result<Vec<bool>, PruneError> {
    for pattern in only.iter().chain(exclude) {
        let is_weight = graph.initializers.keys().any(|name| matches(pattern, name));
        if !is_weight && !graph.nodes.iter().any(|node| node.is_meant(pattern)) {
            return Err(PruneError::Pattern { pattern: pattern.clone() });
        }
    }
    let uses = Uses::of(graph);
    let is_asked = |group: &Group| {
        let makers = makers(graph, &uses, group);
        let is_meant = |pattern: &String| {
            let by_weight = group.with_role(Role::Made).any(|member| matches(pattern, &member.value));
            by_weight || makers.iter().any(|node| node.is_meant(pattern))
        };
        (only.is_empty() || only.iter().any(is_meant)) && !exclude.iter().any(is_meant)
    };
    let asked: Vec<bool> = groups.groups.iter().map(is_asked).collect();
    match asked.iter().any(|&is_asked| is_asked) {
        true => Ok(asked),
        false => Err(PruneError::Nothing { reason: reason(groups, only) }),
    }
}

/// The nodes that make a group's units out of their weights.
fn makers<'a>(graph: &'a Graph, uses: &Uses<'a>, group: &Group) -> Vec<&'a Node> {
    let is_stored = |name: &Name| graph.initializers.contains_key(name);
    let mut makers = Vec::new();
    let mut open: Vec<&Name> = group.with_role(Role::Made).map(|member| &member.value).collect();
    let mut n_seen = 0;
    while let Some(&name) = open.get(n_seen) {
        n_seen += 1;
        for node in uses.readers(name).iter().filter_map(|reader| graph.nodes.get(reader.node_idx)) {
            // A weight that is widened, turned or dequantized first belongs to who reads the result.
            match node.reads().all(|read| read == name || is_stored(read)) {
                true => open.extend(node.outputs.iter().flatten()),
                false => makers.push(node),
            }
        }
    }
    makers
}

fn reason(groups: &Groups, only: &[String]) -> String {
    match groups.refused.iter().find(|refused| only.iter().any(|pattern| matches(pattern, &refused.weight))) {
        Some(refused) => refused.to_string(),
        None if groups.groups.is_empty() => match groups.refused.first() {
            Some(refused) => refused.to_string(),
            None => "the network has no units that go together".to_string(),
        },
        None => "the patterns leave no group (hint: `aludel inspect --groups` lists them)".to_string(),
    }
}
