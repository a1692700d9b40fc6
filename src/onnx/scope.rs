//! Which value a name in a file stands for: bodies see the names around them, functions see none but their own.

use std::collections::{HashMap, HashSet};

use super::error::OnnxError;
use super::raw::Context;
use super::wire::{FunctionProto, GraphProto, NodeProto};
use crate::graph::Name;

/// The names of one graph, body or function.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    around: Option<&'a Scope<'a>>,
    /// What the graph itself defines, as the file names it.
    defined: HashSet<String>,
    /// Names that stand for another value of the graph, or, where a caller has left an input out, for none.
    renamed: HashMap<String, Option<Name>>,
    in_function: bool,
    /// A function does not see the names around its call.
    closed: bool,
}

impl<'a> Scope<'a> {
    /// The scope of the network itself.
    pub(super) fn network(graph: &GraphProto) -> Scope<'static> {
        Scope {
            around: None,
            defined: defined(graph).map(str::to_string).collect(),
            renamed: HashMap::new(),
            in_function: false,
            closed: false,
        }
    }

    /// The scope of a branch or body of a node that stands in this one. What the body names like a value around it gets
    /// another name.
    ///
    /// # Errors
    /// When a body reads such a name before it defines it: it is not clear which of the two it means.
    pub(super) fn body(&'a self, graph: &GraphProto, context: &mut Context) -> Result<Scope<'a>, OnnxError> {
        let defined: HashSet<String> = defined(graph).map(str::to_string).collect();
        let mut renamed = HashMap::new();
        let mut shadowing = HashSet::new();
        for name in self::defined(graph).filter(|name| !name.is_empty()) {
            let shadows = self.defines(name);
            if (shadows || self.in_function) && !renamed.contains_key(name) {
                renamed.insert(name.to_string(), Some(context.fresh(name)));
            }
            if shadows {
                shadowing.insert(name);
            }
        }
        refuse_ambiguous(graph, shadowing)?;
        Ok(Scope { around: Some(self), defined, renamed, in_function: self.in_function, closed: false })
    }

    /// The scope of a function's nodes, in which these names stand for these values and no other name stands for any.
    pub(super) fn function(renamed: HashMap<String, Option<Name>>) -> Scope<'static> {
        Scope { around: None, defined: HashSet::new(), renamed, in_function: true, closed: true }
    }

    /// The value that a name stands for: none where it is empty or stands for an input that a caller has left out.
    ///
    /// # Errors
    /// When a function uses a name that it does not define.
    pub(super) fn resolve(&self, name: &str, names: &HashSet<Name>) -> Result<Option<Name>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(renamed) = self.renamed.get(name) {
            return Ok(renamed.clone());
        }
        match self.around {
            Some(around) => around.resolve(name, names),
            None if self.closed => Err(format!("`{name}` is none of the function's values")),
            None => Ok(Some(names.get(name).cloned().unwrap_or_else(|| name.into()))),
        }
    }

    fn defines(&self, name: &str) -> bool {
        let own = self.defined.contains(name) || (self.closed && self.renamed.contains_key(name));
        own || self.around.is_some_and(|around| around.defines(name))
    }
}

fn defined(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let outputs = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    inputs.chain(initializers(graph)).chain(outputs)
}

fn initializers(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let dense = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let sparse = graph.sparse_initializer.iter().flat_map(|sparse| &sparse.values).map(|values| values.name.as_str());
    dense.chain(sparse)
}

fn refuse_ambiguous(graph: &GraphProto, shadowing: HashSet<&str>) -> Result<(), OnnxError> {
    let mut not_yet = shadowing;
    for name in graph.input.iter().map(|input| input.name.as_str()).chain(initializers(graph)) {
        not_yet.remove(name);
    }
    for node in &graph.node {
        if let Some(name) = node.input.iter().find(|name| not_yet.contains(name.as_str())) {
            let problem = format!("reads `{name}`, which both its body, further on, and the graph around it define");
            return Err(OnnxError::definition(&label(node), problem));
        }
        for output in &node.output {
            not_yet.remove(output.as_str());
        }
    }
    Ok(())
}

/// How messages name a node of a file.
pub(super) fn label(node: &NodeProto) -> String {
    let own = Some(&node.name).filter(|name| !name.is_empty());
    match own.or(node.output.iter().find(|name| !name.is_empty())) {
        Some(name) => format!("{} `{name}`", node.op_type),
        None => node.op_type.clone(),
    }
}

/// Every name in a file, bodies and functions included: what a new name must differ from.
pub(super) fn all_names(graph: &GraphProto, functions: &[FunctionProto]) -> HashSet<Name> {
    let mut names = HashSet::new();
    add_names(graph, &mut names);
    for function in functions {
        add_node_names(&function.node, &mut names);
    }
    names
}

fn add_names(graph: &GraphProto, names: &mut HashSet<Name>) {
    let outputs = graph.output.iter().map(|output| output.name.as_str());
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    for name in inputs.chain(initializers(graph)).chain(outputs) {
        add_name(name, names);
    }
    add_node_names(&graph.node, names);
}

fn add_node_names(nodes: &[NodeProto], names: &mut HashSet<Name>) {
    for node in nodes {
        for name in node.input.iter().chain(&node.output) {
            add_name(name, names);
        }
        for attribute in &node.attribute {
            for graph in attribute.bodies() {
                add_names(graph, names);
            }
        }
    }
}

fn add_name(name: &str, names: &mut HashSet<Name>) {
    if !names.contains(name) {
        names.insert(name.into());
    }
}
