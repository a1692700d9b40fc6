//! From node to node: what a graph's values are, given those of its inputs and of the graphs around it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use super::dims::{Shape, text};
use super::fact::{Call, Fact, problem};
use super::{Bindings, MOST_DIMS, Note, ShapeError, Typed, Types, control, index, rules, symbols, value};
use crate::graph::op::Op;
use crate::graph::{Dim, Graph, Name, Node, ValueInfo};

/// Graphs inside graphs, at most: each takes some stack.
const MOST_NESTED: usize = 32;

/// Names in bodies that are looked at, at most: a loop's body is looked at until nothing changes, and so is one inside.
const MOST_BODY_NAMES: usize = 1 << 20;

/// The most elements of computed values, those that are no shapes, that are carried: a short file can ask for a long list
/// again and again.
const MOST_CARRIED: usize = 1 << 18;

/// The values that a node can read: of the graph that it stands in, and of those around.
pub(super) struct Scope<'a> {
    facts: HashMap<Name, Fact>,
    around: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn get(&self, name: &Name) -> Option<&Fact> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(fact) = here.facts.get(name) {
                return Some(fact);
            }
            scope = here.around;
        }
        None
    }
}

/// Where a walk is.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    bound: &'a BTreeMap<Name, usize>,
    looked_at: &'a LookedAt,
    depth: usize,
}

/// What has been looked at so far, in all bodies and rounds.
#[derive(Default)]
struct LookedAt {
    n_body_names: Cell<usize>,
    n_elements: Cell<usize>,
}

/// What a walk through a graph found.
pub(super) struct Walked {
    pub(super) types: Types,
    pub(super) outputs: Vec<Fact>,
}

/// A whole network.
pub(super) fn network(graph: &Graph, bindings: &Bindings) -> Result<Types, ShapeError> {
    let bound = bound_symbols(graph, bindings)?;
    let context = Context { bound: &bound, looked_at: &LookedAt::default(), depth: 0 };
    let inputs = graph.inputs.iter().map(|input| match bindings.shapes.get(&input.name) {
        Some(shape) => {
            let dims = shape.iter().copied().map(Dim::Known).collect();
            Fact::new(input.tensor_type().map(|stated| stated.dtype), Some(dims))
        }
        None => declared(input, &bound),
    });
    walk(graph, inputs.collect(), None, context).map(|walked| walked.types)
}

/// One node whose surroundings are known.
pub(super) fn single(node: &Node, known: &Types) -> Result<Vec<Option<Typed>>, ShapeError> {
    let fact = |name: &Name| {
        let typed = known.typed(name)?;
        Some((name.clone(), Fact { value: typed.value.clone(), ..Fact::of(&typed.value_type) }))
    };
    let scope = Scope { facts: node.reads().filter_map(fact).collect(), around: None };
    let context = Context { bound: &BTreeMap::new(), looked_at: &LookedAt::default(), depth: 0 };
    let (mut outputs, _) = visit(node, &scope, context)?;
    outputs.resize_with(node.outputs.len(), Fact::default);
    let typed = |(name, fact): (&Option<Name>, Fact)| {
        let value_type = name.as_ref().and_then(|_| fact.value_type())?;
        Some(Typed { value_type, value: fact.value })
    };
    Ok(node.outputs.iter().zip(outputs).map(typed).collect())
}

/// The sizes of symbols: those given, and those that follow from whole shapes given.
fn bound_symbols(graph: &Graph, bindings: &Bindings) -> Result<BTreeMap<Name, usize>, ShapeError> {
    let known = symbols(graph);
    if let Some(name) = bindings.symbols.keys().find(|&symbol| !known.contains(symbol)) {
        return Err(unbound("the symbol", name, known.iter()));
    }
    let mut bound = bindings.symbols.clone();
    for (name, shape) in &bindings.shapes {
        let Some(input) = graph.inputs.iter().find(|input| input.name == *name) else {
            return Err(unbound("the name", name, graph.inputs.iter().map(|input| &input.name)));
        };
        let Some(stated) = input.tensor_type().and_then(|stated| stated.shape.clone()) else { continue };
        let expected = substituted(&stated, &bound);
        let misfit = || ShapeError::Input { input: name.clone(), expected: text(&expected), got: shape.clone() };
        if stated.len() != shape.len() {
            return Err(misfit());
        }
        for (dim, &size) in stated.iter().zip(shape) {
            let before = match dim {
                Dim::Known(known) => Some(*known),
                Dim::Symbol(symbol) => bound.insert(symbol.clone(), size),
                Dim::Unknown => None,
            };
            if before.is_some_and(|before| before != size) {
                return Err(misfit());
            }
        }
    }
    Ok(bound)
}

fn unbound<'a>(kind: &'static str, name: &Name, known: impl Iterator<Item = &'a Name>) -> ShapeError {
    let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
    ShapeError::Unbound { kind, name: name.clone(), known }
}

fn substituted(dims: &[Dim], bound: &BTreeMap<Name, usize>) -> Vec<Dim> {
    let size = |dim: &Dim| match dim {
        Dim::Symbol(symbol) => bound.get(symbol).map_or_else(|| dim.clone(), |&size| Dim::Known(size)),
        Dim::Known(_) | Dim::Unknown => dim.clone(),
    };
    dims.iter().map(size).collect()
}

fn declared(info: &ValueInfo, bound: &BTreeMap<Name, usize>) -> Fact {
    let mut fact = info.value_type.as_ref().map(Fact::of).unwrap_or_default();
    fact.shape = fact.shape.map(|dims| substituted(&dims, bound));
    fact
}

/// A branch or body, its inputs helped by what it declares of them.
pub(super) fn body(
    node: &Node,
    graph: &Graph,
    inputs: Vec<Fact>,
    scope: &Scope<'_>,
    context: Context<'_>,
) -> Result<Walked, ShapeError> {
    if inputs.len() != graph.inputs.len() {
        let misfit = problem("the number of its body's inputs", inputs.len(), graph.inputs.len());
        return Err(ShapeError::at(node, misfit));
    }
    let n_names = context.looked_at.n_body_names.get().saturating_add(n_names(graph));
    context.looked_at.n_body_names.set(n_names);
    if context.depth >= MOST_NESTED || n_names > MOST_BODY_NAMES {
        return Err(ShapeError::TooDeep { node: node.label() });
    }
    let helped = graph.inputs.iter().zip(inputs).map(|(info, fact)| helped(fact, &declared(info, context.bound)).0);
    let inside = Context { depth: context.depth + 1, ..context };
    walk(graph, helped.collect(), Some(scope), inside)
        .map_err(|source| ShapeError::Body { node: node.label(), source: Box::new(source) })
}

fn n_names(graph: &Graph) -> usize {
    let of_node = |node: &Node| 1 + node.inputs.len() + node.outputs.len();
    let stated = graph.inputs.len() + graph.outputs.len() + graph.value_info.len() + graph.captures().len();
    let constants = graph.initializers.len() + graph.sparse_initializers.len();
    graph.nodes.iter().map(of_node).fold(stated + constants, usize::saturating_add)
}

fn walk(
    graph: &Graph,
    inputs: Vec<Fact>,
    around: Option<&Scope<'_>>,
    context: Context<'_>,
) -> Result<Walked, ShapeError> {
    let mut scope = Scope { facts: HashMap::with_capacity(inputs.len() + graph.nodes.len()), around };
    let mut types = Types::default();
    let constants = graph.initializers.iter().map(|(name, tensor)| (name, index::of_tensor(tensor)));
    let sparse = graph.sparse_initializers.iter().map(|(name, tensor)| {
        let shape = tensor.shape.iter().copied().map(Dim::Known).collect();
        (name, Fact::new(Some(tensor.values.dtype()), Some(shape)))
    });
    let given = graph.inputs.iter().map(|input| &input.name).zip(inputs);
    scope.facts.extend(constants.chain(sparse).chain(given).map(|(name, fact)| (name.clone(), fact)));

    let stated = graph.value_info.values().chain(&graph.outputs).filter(|info| info.value_type.is_some());
    let stated: HashMap<&Name, &ValueInfo> = stated.map(|info| (&info.name, info)).collect();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        let (outputs, bodies) = visit(node, &scope, context)?;
        for (body_idx, mut body) in bodies.into_iter().enumerate() {
            types.notes.append(&mut body.notes);
            types.bodies.insert((node_idx, body_idx), body);
        }
        let facts = outputs.into_iter().chain(std::iter::repeat_with(Fact::default));
        for (name, mut fact) in node.outputs.iter().zip(facts) {
            let Some(name) = name else { continue };
            if let Some(info) = stated.get(name) {
                let (helped, contradicted) = helped(fact, &declared(info, context.bound));
                fact = helped;
                types.notes.extend(contradicted.then(|| note(info, &fact)).flatten());
            }
            scope.facts.insert(name.clone(), fact);
        }
    }
    let outputs = graph.outputs.iter().map(|output| scope.get(&output.name).cloned().unwrap_or_default()).collect();
    for name in graph.captures() {
        if let Some(fact) = scope.get(name) {
            types.state(name, fact.clone());
        }
    }
    for (name, fact) in scope.facts {
        types.state(&name, fact);
    }
    Ok(Walked { types, outputs })
}

fn note(info: &ValueInfo, inferred: &Fact) -> Option<Note> {
    let (declared, inferred) = (info.value_type.clone()?, inferred.value_type()?);
    Some(Note::Declared { value: info.name.clone(), declared, inferred })
}

/// What is inferred, helped by what is declared where it is silent; and whether the two contradict each other.
///
/// A symbol that is inferred is one of the inputs, of any size: a number declared in its place is a contradiction, left
/// behind when the batch was made free.
fn helped(inferred: Fact, declared: &Fact) -> (Fact, bool) {
    if inferred == Fact::default() {
        return (declared.clone(), false);
    }
    if inferred.other.is_some() || declared.other.is_some() {
        let contradicted = *declared != Fact::default() && inferred.other != declared.other;
        return (inferred, contradicted);
    }
    let mut contradicted = matches!((inferred.dtype, declared.dtype), (Some(a), Some(b)) if a != b);
    let shape: Shape = match (&inferred.shape, &declared.shape) {
        (Some(dims), Some(stated)) if dims.len() != stated.len() => {
            contradicted = true;
            Some(dims.clone())
        }
        (Some(dims), Some(stated)) => {
            let both = dims.iter().zip(stated);
            contradicted |= both.clone().any(|(dim, stated)| contradicts(dim, stated));
            Some(both.map(|(dim, stated)| if *dim == Dim::Unknown { stated.clone() } else { dim.clone() }).collect())
        }
        (Some(dims), None) | (None, Some(dims)) => Some(dims.clone()),
        (None, None) => None,
    };
    (Fact { dtype: inferred.dtype.or(declared.dtype), shape, value: inferred.value, other: None }, contradicted)
}

fn contradicts(inferred: &Dim, stated: &Dim) -> bool {
    match (inferred, stated) {
        (Dim::Known(a), Dim::Known(b)) => a != b,
        (Dim::Symbol(_), Dim::Known(_)) => true,
        (Dim::Known(_) | Dim::Symbol(_), Dim::Symbol(_) | Dim::Unknown) | (Dim::Unknown, _) => false,
    }
}

/// What is known of a node's outputs, and the types in its bodies.
fn visit(node: &Node, scope: &Scope<'_>, context: Context<'_>) -> Result<(Vec<Fact>, Vec<Types>), ShapeError> {
    let nothing = Fact::default();
    let inputs: Vec<Option<&Fact>> =
        node.inputs.iter().map(|name| name.as_ref().map(|name| scope.get(name).unwrap_or(&nothing))).collect();
    let call = Call { op: &node.op, inputs: &inputs, n_outputs: node.outputs.len() };
    let Some(rule) = rules::rule(&node.op) else {
        return control::outputs(node, &call, scope, context);
    };
    let no_tensor = inputs.iter().flatten().find_map(|fact| fact.other.as_ref());
    if let Some(other) = no_tensor {
        // of the operators of the table only this one takes anything else
        if matches!(node.op, Op::Identity) {
            return Ok((vec![inputs.first().copied().flatten().cloned().unwrap_or_default()], Vec::new()));
        }
        return Err(ShapeError::at(node, problem("its inputs", "tensors", other)));
    }
    let mut outputs = (rule.outputs)(&call).map_err(|problem| ShapeError::at(node, problem))?;
    outputs.truncate(node.outputs.len());
    for output in &mut outputs {
        output.shape.take_if(|dims| dims.len() > MOST_DIMS);
    }
    if !(context.looked_at.n_elements.get() > MOST_CARRIED && inputs.iter().flatten().any(|fact| n_listed(fact) > 0)) {
        value::carry(&call, rule.carrying, &mut outputs);
    }
    for output in &mut outputs {
        let n_elements = context.looked_at.n_elements.get().saturating_add(n_listed(output));
        context.looked_at.n_elements.set(n_elements);
        if n_listed(output) > 0 && n_elements > MOST_CARRIED {
            output.value = None;
        }
    }
    Ok((outputs, Vec::new()))
}

/// The number of elements of a value that is longer than a shape.
fn n_listed(fact: &Fact) -> usize {
    fact.value.as_ref().map(value::Value::len).filter(|&n| n > MOST_DIMS).unwrap_or(0)
}

/// The types of a graph that is not run, as far as they follow from what it declares.
pub(super) fn unused_body(node: &Node, graph: &Graph, scope: &Scope<'_>, context: Context<'_>) -> Walked {
    let inputs = graph.inputs.iter().map(|input| declared(input, context.bound)).collect();
    body(node, graph, inputs, scope, context).unwrap_or_else(|error| {
        let notes = vec![Note::Unused { error }];
        Walked { types: Types { notes, ..Types::default() }, outputs: vec![Fact::default(); graph.outputs.len()] }
    })
}
