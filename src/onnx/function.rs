//! Model-local functions: a call is replaced by the function's nodes when a file is read.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::error::{NodeProblem, OnnxError};
use super::raw::RawNode;
use super::read::{Reader, Site, domain, opsets};
use super::scope::Scope;
use super::types;
use super::wire::FunctionProto;
use crate::graph::attribute::Attribute;
use crate::graph::{GraphParts, Name, Node, Op};

/// The attributes that a function is called with, defaults included.
pub(super) type Bindings = HashMap<String, Attribute>;

/// How many nodes all the calls of a file may put in their place: calls of calls multiply.
const MOST_INLINED: usize = 1 << 18;

/// The functions of a file, by domain, name and overload.
#[derive(Debug, Default)]
pub(super) struct Functions {
    by_key: HashMap<Key, Rc<FunctionProto>>,
    /// The functions that are being inlined, outermost first.
    open: Vec<Rc<FunctionProto>>,
    n_inlined: usize,
}

type Key = (String, String, String);

impl Functions {
    /// # Errors
    /// When two are called the same.
    pub(super) fn new(protos: Vec<FunctionProto>) -> Result<Functions, OnnxError> {
        let mut functions = Functions::default();
        for proto in protos {
            let key = (domain(&proto.domain).to_string(), proto.name.clone(), proto.overload.clone());
            if let Some(earlier) = functions.by_key.insert(key, Rc::new(proto)) {
                return Err(OnnxError::Model(format!("two functions are called {}", full_name(&earlier))));
            }
        }
        Ok(functions)
    }

    /// The function that a node calls; none where it is an operator.
    pub(super) fn get(&self, node: &RawNode, overload: &str) -> Option<Rc<FunctionProto>> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&(node.domain.clone(), node.op_type.clone(), overload.to_string())).cloned()
    }
}

fn full_name(function: &FunctionProto) -> String {
    let overload = Some(&function.overload).filter(|overload| !overload.is_empty());
    let overload = overload.map(|overload| format!(":{overload}")).unwrap_or_default();
    format!("`{}.{}{overload}`", function.domain, function.name)
}

impl Reader {
    /// Puts the function's nodes in the place of a call. Their inner values get names of their own, after the call's.
    ///
    /// # Errors
    /// When the function calls itself, the call does not fit its definition, or one of its nodes is at fault.
    pub(super) fn inline(
        &mut self,
        call: RawNode,
        label: &str,
        function: &Rc<FunctionProto>,
        site: &Site<'_>,
        parts: &mut GraphParts,
    ) -> Result<(), OnnxError> {
        if self.functions.open.iter().any(|open| Rc::ptr_eq(open, function)) {
            let problem = format!("function {} calls itself", full_name(function));
            return Err(OnnxError::definition(label, problem));
        }
        self.functions.n_inlined = self.functions.n_inlined.saturating_add(function.node.len());
        if self.functions.n_inlined > MOST_INLINED {
            return Err(OnnxError::Model(format!("its functions unfold to more than {MOST_INLINED} nodes")));
        }
        self.functions.open.push(Rc::clone(function));
        let result = self.nested(|reader| reader.inline_here(call, function, site, parts));
        self.functions.open.pop();
        result.map_err(|source| {
            let function = full_name(function);
            OnnxError::node(label, NodeProblem::Function { function, source: Box::new(source) })
        })
    }

    fn inline_here(
        &mut self,
        call: RawNode,
        function: &FunctionProto,
        site: &Site<'_>,
        parts: &mut GraphParts,
    ) -> Result<(), OnnxError> {
        let (opset, domains) = opsets(&function.opset_import)?;
        let values = self.function_values(&call, function)?;
        let scope = Scope::function(values.named);
        let mut inner =
            Site { scope: &scope, opset: opset.unwrap_or(site.opset), domains: Some(&domains), bindings: None };
        let mut bindings: Bindings =
            self.attributes(function.attribute_proto.clone(), &inner, "its own")?.into_iter().collect();
        bindings.extend(call.attributes);
        inner.bindings = Some(&bindings);
        for proto in &function.value_info {
            if let Some(name) = values.inner.get(&proto.name) {
                let info = types::decode_value(proto.clone(), name.clone())?;
                self.context.declare(&info);
                parts.value_info.insert(name.clone(), info);
            }
        }
        self.nodes(function.node.clone(), &inner, parts)?;
        for (formal, actual) in values.copies {
            let source = scope.resolve(&formal, &self.names).map_err(OnnxError::Model)?;
            parts.nodes.push(Node::new(Op::Identity, vec![source], vec![Some(actual)]));
        }
        Ok(())
    }

    fn function_values(&mut self, call: &RawNode, function: &FunctionProto) -> Result<Values, OnnxError> {
        let too_many = |kind: &str, formal: usize, actual: usize| {
            let problem = format!("it takes at most {formal} {kind}s, the call has {actual}");
            (actual > formal).then_some(OnnxError::Model(problem)).map_or(Ok(()), Err)
        };
        too_many("input", function.input.len(), call.inputs.len())?;
        too_many("output", function.output.len(), call.outputs.len())?;
        let mut values = Values::default();
        for (position, formal) in function.input.iter().enumerate() {
            values.named.insert(formal.clone(), call.inputs.get(position).cloned().flatten());
        }
        for (formal, actual) in function.output.iter().zip(&call.outputs) {
            let Some(actual) = actual else { continue };
            if values.named.contains_key(formal) {
                values.copies.push((formal.clone(), actual.clone()));
            } else {
                values.named.insert(formal.clone(), Some(actual.clone()));
            }
        }
        let inputs: HashSet<&String> = function.input.iter().collect();
        let own = Some(&call.name).filter(|name| !name.is_empty()).cloned();
        let first_output = || call.outputs.iter().flatten().next().map(Name::to_string);
        let prefix = own.or_else(first_output).unwrap_or_else(|| call.op_type.clone());
        for output in function.node.iter().flat_map(|node| &node.output).filter(|output| !output.is_empty()) {
            if inputs.contains(output) {
                return Err(OnnxError::Model(format!("it computes its own input `{output}`")));
            }
            if !values.named.contains_key(output) {
                let name = self.context.fresh(&format!("{prefix}/{output}"));
                values.named.insert(output.clone(), Some(name.clone()));
                values.inner.insert(output.clone(), name);
            }
        }
        Ok(values)
    }
}

/// What the names in a function stand for at one call.
#[derive(Debug, Default)]
struct Values {
    named: HashMap<String, Option<Name>>,
    /// Those that are neither inputs nor outputs of the function.
    inner: HashMap<String, Name>,
    /// Outputs that are an input or another output as well: name in the function, value of the call.
    copies: Vec<(String, Name)>,
}
