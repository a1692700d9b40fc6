//! The narrowed graph: constants converted, nodes renamed to what they read, casts where a region ends.
//!
//! A value keeps its name in the type that it is computed in, unless a port of the network or a body of a node reads it
//! under that name in the other one.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::decide::{Plan, Reads, Verdict, is_f32, reads, writes_narrow};
use super::numbers::narrowed;
use super::roles::least_opset;
use super::weights::{self, FEWEST_ELEMENTS};
use super::{HalfOptions, HalfType, Halved, Kept, QuantizeHalfError};
use crate::graph::op::{Cast, Constant, ConstantOfShape, Op, RoundMode};
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, GraphParts, Name, Node, ValueInfo, ValueType};

pub(super) fn rewrite(
    graph: &Graph,
    types: &Types,
    options: &HalfOptions,
    plan: Plan,
) -> Result<Halved, QuantizeHalfError> {
    let mut rewriting = Rewriting {
        graph,
        uses: Uses::of(graph),
        types,
        options,
        plan,
        taken: graph.all_names(),
        names: HashMap::new(),
        parts: graph.to_parts(),
        notes: weights::given(graph),
    };
    let demands = rewriting.demands();
    let fixed = rewriting.fixed();
    let mut casts = Vec::new();
    for name in graph.value_names().filter(|name| is_f32(types, name)) {
        let demand = demands.get(name).copied().unwrap_or_default();
        casts.extend(rewriting.value(name, demand, fixed.get(name).copied())?);
    }
    let nodes = graph.nodes.iter().enumerate().map(|(idx, node)| rewriting.node(idx, node));
    rewriting.parts.nodes = casts.into_iter().map(Ok).chain(nodes).collect::<Result<_, _>>()?;
    rewriting.finish()
}

/// In which types a value is read.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    narrow: bool,
    wide: bool,
}

/// The type that a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Narrow,
    Wide,
}

/// What a value is called in either type.
#[derive(Clone, Debug, Default)]
struct Names {
    narrow: Option<Name>,
    wide: Option<Name>,
    /// The one that it is computed in.
    own: Option<Width>,
}

struct Rewriting<'a> {
    graph: &'a Graph,
    uses: Uses<'a>,
    types: &'a Types,
    options: &'a HalfOptions,
    plan: Plan,
    taken: BTreeSet<Name>,
    names: HashMap<Name, Names>,
    parts: GraphParts,
    notes: Vec<String>,
}

impl Rewriting<'_> {
    fn to(&self) -> HalfType {
        self.options.dtype
    }

    /// How a node reads an `f32` input, now that it is decided.
    fn reads(&self, node_idx: usize, position: usize) -> Reads {
        let node = &self.graph.nodes[node_idx];
        match (&self.plan.verdicts[node_idx], reads(node, position, self.to())) {
            (_, Reads::Any) => Reads::Any,
            (Verdict::Narrow, reads) => reads,
            (Verdict::Untouched | Verdict::Stays(_), Reads::Narrow | Reads::Wide) => Reads::Wide,
        }
    }

    fn demands(&self) -> HashMap<Name, Demand> {
        let mut demands: HashMap<Name, Demand> = HashMap::new();
        for (node_idx, node) in self.graph.nodes.iter().enumerate() {
            for (position, name) in node.inputs.iter().enumerate() {
                let Some(name) = name else { continue };
                let demand = demands.entry(name.clone()).or_default();
                match self.reads(node_idx, position) {
                    Reads::Narrow => demand.narrow = true,
                    Reads::Wide => demand.wide = true,
                    Reads::Any => {}
                }
            }
        }
        demands
    }

    /// The type of each value that has to have it under its own name.
    fn fixed(&mut self) -> HashMap<Name, Width> {
        let port = if self.options.keep_ports { Width::Wide } else { Width::Narrow };
        let ports = self.graph.inputs.iter().chain(&self.graph.outputs).map(|port| port.name.clone());
        let mut fixed: HashMap<Name, Width> = ports.map(|name| (name, port)).collect();
        let captured = self.graph.nodes.iter().flat_map(|node| node.op.bodies()).flat_map(Graph::captures);
        let given = self.graph.sparse_initializers.keys().chain(&self.graph.overridable);
        let wide: HashSet<&Name> = captured.chain(given).filter(|name| is_f32(self.types, name)).collect();
        for name in self.graph.value_names().filter(|name| wide.contains(name)) {
            if fixed.insert(name.clone(), Width::Wide) == Some(Width::Narrow) {
                self.notes.push(format!("`{name}` stays f32: a body of the network reads it, or a caller may give it"));
            }
        }
        fixed
    }

    /// Names a value in the types that it is read in; the constant or the casts that make it so.
    fn value(&mut self, name: &Name, demand: Demand, fixed: Option<Width>) -> Result<Vec<Node>, QuantizeHalfError> {
        let given = self.graph.overridable.contains(name);
        if let Some(tensor) = self.graph.initializers.get(name).filter(|_| !given).cloned() {
            return self.constant(name, &tensor, demand, fixed);
        }
        let computed = self.uses.producer_idx(name).map(|node_idx| {
            let node = &self.graph.nodes[node_idx];
            let position = node.outputs.iter().position(|output| output.as_ref() == Some(name)).unwrap_or_default();
            let narrow = self.plan.verdicts[node_idx] == Verdict::Narrow && writes_narrow(node, position, self.to());
            if narrow { Width::Narrow } else { Width::Wide }
        });
        let own = computed.or(fixed).unwrap_or(Width::Wide);
        let mut names = Names { own: Some(own), ..Names::default() };
        let own_name = if fixed.unwrap_or(own) == own { name.clone() } else { self.fresh(name, own) };
        let (other, wanted) = match own {
            Width::Narrow => (Width::Wide, demand.wide),
            Width::Wide => (Width::Narrow, demand.narrow),
        };
        let other_name = match fixed {
            Some(fixed) if fixed != own => Some(name.clone()),
            Some(_) | None => wanted.then(|| self.fresh(name, other)),
        };
        let cast = other_name.as_ref().map(|to| cast(&own_name, to, self.dtype(other)));
        names.set(own, Some(own_name));
        names.set(other, other_name);
        self.names.insert(name.clone(), names);
        Ok(cast.into_iter().collect())
    }

    fn constant(
        &mut self,
        name: &Name,
        tensor: &Tensor,
        demand: Demand,
        fixed: Option<Width>,
    ) -> Result<Vec<Node>, QuantizeHalfError> {
        let wants_narrow = demand.narrow || fixed == Some(Width::Narrow);
        let wants_wide = demand.wide || fixed == Some(Width::Wide);
        let mut names = Names::default();
        if !wants_narrow {
            names = Names { wide: Some(name.clone()), own: Some(Width::Wide), narrow: None };
            self.names.insert(name.clone(), names);
            return Ok(Vec::new());
        }
        let least = self.plan.masks.least.get(name).copied();
        let narrow = narrowed(tensor, self.to(), least)?;
        let under_own = if fixed == Some(Width::Wide) { Width::Wide } else { Width::Narrow };
        let narrow_name = if under_own == Width::Narrow { name.clone() } else { self.fresh(name, Width::Narrow) };
        let mut casts = Vec::new();
        self.parts.initializers.insert(narrow_name.clone(), narrow);
        if wants_wide {
            let wide_name = if under_own == Width::Wide { name.clone() } else { self.fresh(name, Width::Wide) };
            if tensor.len() < FEWEST_ELEMENTS || least.is_some() {
                self.parts.initializers.insert(wide_name.clone(), tensor.clone());
            } else {
                self.parts.initializers.shift_remove(&wide_name);
                casts.push(cast(&narrow_name, &wide_name, DType::F32));
            }
            names.wide = Some(wide_name);
        }
        if let Some(least) = least {
            self.notes.push(format!("the mask `{name}` goes down to {least:e} only, which Softmax takes for the same"));
        }
        names.narrow = Some(narrow_name);
        names.own = Some(Width::Narrow);
        self.names.insert(name.clone(), names);
        Ok(casts)
    }

    fn dtype(&self, width: Width) -> DType {
        match width {
            Width::Narrow => self.to().dtype(),
            Width::Wide => DType::F32,
        }
    }

    fn fresh(&mut self, name: &Name, width: Width) -> Name {
        let base = format!("{name}_{}", self.dtype(width));
        let numbered = (2..).map(|number| Name::from(format!("{base}_{number}")));
        let fresh = std::iter::once(Name::from(base.as_str())).chain(numbered).find(|name| !self.taken.contains(name));
        let fresh = fresh.expect("there are more numbers than names");
        self.taken.insert(fresh.clone());
        fresh
    }

    /// The node as it is decided.
    fn node(&self, node_idx: usize, node: &Node) -> Result<Node, QuantizeHalfError> {
        let mut node = node.clone();
        for (position, name) in node.inputs.iter_mut().enumerate() {
            let Some(names) = name.as_ref().and_then(|name| self.names.get(name)) else { continue };
            *name = match self.reads(node_idx, position) {
                Reads::Narrow => names.narrow.clone(),
                Reads::Wide => names.wide.clone(),
                Reads::Any => names.own().cloned(),
            };
        }
        for name in node.outputs.iter_mut() {
            let Some(names) = name.as_ref().and_then(|name| self.names.get(name)) else { continue };
            *name = names.own().cloned();
        }
        if self.plan.verdicts[node_idx] == Verdict::Narrow {
            self.retype(node_idx, &mut node)?;
        }
        Ok(node)
    }

    /// The attributes that state the element type.
    fn retype(&self, node_idx: usize, node: &mut Node) -> Result<(), QuantizeHalfError> {
        let to = self.to().dtype();
        let original = &self.graph.nodes[node_idx];
        let least = original.output(0).and_then(|name| self.plan.masks.least.get(name)).copied();
        if let Op::Cast(cast) = &mut node.op {
            cast.to = to;
            let source = original.input(0);
            let is_narrow = |name: &Name| match self.names.get(name) {
                Some(names) => names.own == Some(Width::Narrow),
                None => self.types.tensor(name).is_some_and(|tensor| tensor.dtype == to),
            };
            if source.is_some_and(is_narrow) {
                node.op = Op::Identity;
            }
        } else if let Op::Constant(constant) = &node.op {
            node.op = Op::Constant(Constant { value: narrowed(&constant.value, self.to(), least)? });
        } else if let Op::ConstantOfShape(constant) = &node.op {
            let value = narrowed(&constant.element(), self.to(), least)?;
            node.op = Op::ConstantOfShape(ConstantOfShape { value: Some(value) });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Halved, QuantizeHalfError> {
        let to = self.to();
        let narrow: HashSet<&Name> = self
            .names
            .iter()
            .filter(|(name, names)| names.narrow.as_ref() == Some(*name))
            .map(|(name, _)| name)
            .collect();
        let ports = self.parts.inputs.iter_mut().chain(&mut self.parts.outputs);
        for info in ports.chain(self.parts.value_info.values_mut()).filter(|info| narrow.contains(&info.name)) {
            restate(info, to.dtype());
        }
        let (mut kept, mut n_narrowed, mut opset) = (Vec::new(), 0, 7);
        for (node, verdict) in self.graph.nodes.iter().zip(&self.plan.verdicts) {
            match verdict {
                Verdict::Untouched => {}
                Verdict::Narrow => {
                    n_narrowed += 1;
                    opset = opset.max(least_opset(&node.op, to));
                }
                Verdict::Stays(reason) => kept.push(Kept { node: node.label(), reason: reason.clone() }),
            }
        }
        Ok(Halved { graph: Graph::new(self.parts)?, kept, notes: self.notes, n_narrowed, opset })
    }
}

impl Names {
    fn set(&mut self, width: Width, name: Option<Name>) {
        match width {
            Width::Narrow => self.narrow = name,
            Width::Wide => self.wide = name,
        }
    }

    fn own(&self) -> Option<&Name> {
        match self.own? {
            Width::Narrow => self.narrow.as_ref(),
            Width::Wide => self.wide.as_ref(),
        }
    }
}

fn cast(from: &Name, to: &Name, dtype: DType) -> Node {
    let cast = Cast { to: dtype, saturate: true, round_mode: RoundMode::Up };
    Node::new(Op::Cast(cast), vec![Some(from.clone())], vec![Some(to.clone())])
}

fn restate(info: &mut ValueInfo, dtype: DType) {
    if let Some(ValueType::Tensor(tensor)) = &mut info.value_type {
        tensor.dtype = dtype;
    }
}
