//! Several networks in one that read the same inputs.

use std::collections::HashMap;

use super::{PatchError, rename};
use crate::graph::{Graph, GraphParts, Name};

/// Networks side by side in one graph. Their values are named `{member}.{value}`; inputs are those of the first, which the
/// others read by their name, or by their place where a network has only one. Outputs stand one network after the other.
///
/// # Errors
/// When there is no network, or one reads what the first does not.
pub fn beside(name: &str, members: &[(&str, &Graph)]) -> Result<Graph, PatchError> {
    let Some((_, first)) = members.first() else {
        return Err(PatchError::NoSuch { kind: "input", name: Name::from("") });
    };
    let mut joined = GraphParts { name: name.to_string(), inputs: first.inputs.clone(), ..GraphParts::default() };
    for (member, graph) in members {
        let prefixed = |value: &Name| (value.clone(), Name::from(format!("{member}.{value}")));
        let mut names: HashMap<Name, Name> = graph.value_names().map(prefixed).collect();
        for input in &graph.inputs {
            let same = match (graph.inputs.as_slice(), first.inputs.as_slice()) {
                ([_], [only]) => Some(only),
                _ => first.inputs.iter().find(|other| other.name == input.name),
            };
            let same = same.ok_or_else(|| PatchError::NoSuch { kind: "input", name: input.name.clone() })?;
            names.insert(input.name.clone(), same.name.clone());
        }
        let own = |name: &Name| names.get(name).cloned().unwrap_or_else(|| name.clone());
        let parts = graph.to_parts();
        for mut node in parts.nodes {
            rename::reads(&mut node, &names)?;
            node.outputs.iter_mut().flatten().for_each(|output| *output = own(output));
            if !node.name.is_empty() {
                node.name = format!("{member}.{}", node.name);
            }
            joined.nodes.push(node);
        }
        joined.initializers.extend(parts.initializers.into_iter().map(|(name, tensor)| (own(&name), tensor)));
        let sparse = parts.sparse_initializers.into_iter();
        joined.sparse_initializers.extend(sparse.map(|(name, tensor)| (own(&name), tensor)));
        // what is said of values that cannot be inferred; inputs are the first's
        for (name, mut info) in parts.value_info {
            info.name = own(&name);
            joined.value_info.insert(own(&name), info);
        }
        for mut output in parts.outputs {
            output.name = own(&output.name);
            joined.outputs.push(output);
        }
    }
    Ok(Graph::new(joined)?)
}
