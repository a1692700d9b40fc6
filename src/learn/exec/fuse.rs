//! Neighbouring primitives that one kernel does together, found before a program is differentiated.
//!
//! A rule looks at a step and at what lies before it; values in between must be read once and not be asked for. The steps that
//! a rule makes superfluous are left to the removal of dead ones.

use super::emit::Emitter;
use super::numbers;
use super::program::{Id, Kind, Primitive, Source, Step, Value};
use crate::learn::kernels::elementwise::{Binary, Unary};

/// Rewrites a program; `kept` values are asked for by the caller.
pub(super) fn fuse(emitter: &mut Emitter, kept: &[Id]) {
    let steps = std::mem::take(&mut emitter.program.steps);
    let view = View::new(emitter, &steps, kept);
    for step in &steps {
        emitter.resume(step);
        if absorb_relu(emitter, &view, step) {
            continue;
        }
        match product_and_bias(emitter, &view, step).or_else(|| attention(emitter, &view, step)) {
            // the value keeps its id, so that whoever reads it need not know
            Some(id) => rename(emitter, id, step.outputs[0]),
            None => emitter.program.steps.push(step.clone()),
        }
    }
}

/// The last step that was emitted makes `to` in place of `from`.
fn rename(emitter: &mut Emitter, from: Id, to: Id) {
    let last = emitter.program.steps.last_mut().expect("a rule emits a step");
    let output = last.outputs.iter_mut().find(|id| **id == from);
    *output.expect("a rule ends with the step that makes its value") = to;
}

/// The steps before fusion: who makes a value, and how often it is read.
struct View<'a> {
    steps: &'a [Step],
    /// By value: the step that makes it.
    makers: Vec<Option<usize>>,
    /// By value: how often it is read or asked for.
    n_uses: Vec<usize>,
    /// By value: whether it depends on a parameter.
    learns: Vec<bool>,
}

impl<'a> View<'a> {
    fn new(emitter: &Emitter, steps: &'a [Step], kept: &[Id]) -> View<'a> {
        let values = &emitter.program.values;
        let mut view = View {
            steps,
            makers: vec![None; values.len()],
            n_uses: vec![0; values.len()],
            learns: values.iter().map(|value| matches!(value.source, Source::Parameter(_))).collect(),
        };
        kept.iter().for_each(|&id| view.n_uses[id] += 1);
        for (step_idx, step) in steps.iter().enumerate() {
            step.inputs.iter().for_each(|&id| view.n_uses[id] += 1);
            let learns = step.inputs.iter().any(|&id| view.learns[id]);
            for &id in &step.outputs {
                view.makers[id] = Some(step_idx);
                view.learns[id] = learns;
            }
        }
        view
    }

    fn maker(&self, id: Id) -> Option<&'a Step> {
        self.makers[id].map(|step_idx| &self.steps[step_idx])
    }

    /// The step that makes a value which nobody else reads.
    fn sole(&self, id: Id) -> Option<&'a Step> {
        self.maker(id).filter(|_| self.n_uses[id] == 1)
    }

    /// The value behind reshapes that nobody else reads.
    fn behind_reshapes(&self, id: Id) -> Id {
        let mut id = id;
        while let Some(Step { primitive: Primitive::Reshape, inputs, .. }) = self.sole(id) {
            id = inputs[0];
        }
        id
    }
}

/// `Relu` after a batch normalisation or a linear layer: the step before does it, and makes the value.
fn absorb_relu(emitter: &mut Emitter, view: &View<'_>, step: &Step) -> bool {
    let (Primitive::Unary(Unary::Relu), [x], [y]) = (&step.primitive, step.inputs.as_slice(), step.outputs.as_slice())
    else {
        return false;
    };
    if view.n_uses[*x] != 1 {
        return false;
    }
    let Some(before) = emitter.program.steps.iter_mut().rev().find(|before| before.outputs[0] == *x) else {
        return false;
    };
    match &mut before.primitive {
        Primitive::BatchNorm { relu, .. } | Primitive::Linear { relu, .. } if !*relu => *relu = true,
        _ => return false,
    }
    before.outputs[0] = *y;
    true
}

/// `a b + bias` of matrices, where the bias is a row.
fn product_and_bias(emitter: &mut Emitter, view: &View<'_>, step: &Step) -> Option<Id> {
    let Primitive::Binary(Binary::Add) = step.primitive else { return None };
    for (product, bias) in [(step.inputs[0], step.inputs[1]), (step.inputs[1], step.inputs[0])] {
        let shape = emitter.shape(step.outputs[0]).to_vec();
        let matrix = view.behind_reshapes(product);
        let Some(Step { primitive: Primitive::MatMul { transpose_a: false, transpose_b }, inputs, .. }) =
            view.sole(matrix)
        else {
            continue;
        };
        let fits = emitter.shape(product) == shape
            && emitter.rank(inputs[0]) == 2
            && emitter.rank(inputs[1]) == 2
            && shape.last() == emitter.shape(matrix).last()
            && *emitter.shape(bias) == shape[shape.len() - 1..];
        if fits {
            let y = emitter.linear(inputs[0], inputs[1], bias, *transpose_b, false);
            return Some(if emitter.shape(y) == shape { y } else { emitter.reshape(y, &shape) });
        }
    }
    None
}

/// Scaled dot-product attention on heads that were split from `[batch, tokens, heads · size]` and are joined again: Vaswani
/// et al., "Attention Is All You Need" (2017), equation 1.
fn attention(emitter: &mut Emitter, view: &View<'_>, step: &Step) -> Option<Id> {
    let Primitive::Reshape = step.primitive else { return None };
    let joined = view.sole(step.inputs[0]).filter(|step| is_transpose(step, &[0, 2, 1, 3]))?;
    let weighted = view.sole(joined.inputs[0]).filter(|step| is_product(step))?;
    let softmax = view.sole(weighted.inputs[0]).filter(|step| matches!(step.primitive, Primitive::Softmax(3)))?;
    let (scores, mask) = masked(emitter, view, softmax.inputs[0]);
    let (scores, scale) = scaled(emitter, view, scores);
    let product = view.sole(scores)?;
    let transposed_keys = match product.primitive {
        Primitive::MatMul { transpose_a: false, transpose_b } => transpose_b,
        _ => return None,
    };
    let q = split_heads(emitter, view, product.inputs[0], &[0, 2, 1, 3])?;
    let k = if transposed_keys {
        split_heads(emitter, view, product.inputs[1], &[0, 2, 1, 3])?
    } else {
        let swapped = view.sole(product.inputs[1]).filter(|step| is_transpose(step, &[0, 1, 3, 2]));
        swapped
            .and_then(|step| split_heads(emitter, view, step.inputs[0], &[0, 2, 1, 3]))
            .or_else(|| split_heads(emitter, view, product.inputs[1], &[0, 2, 3, 1]))?
    };
    let v = split_heads(emitter, view, weighted.inputs[1], &[0, 2, 1, 3])?;
    let n_heads = emitter.shape(q)[2];
    let is_alike =
        [k, v].iter().all(|&id| emitter.shape(id)[2] == n_heads && emitter.shape(id)[0] == emitter.shape(q)[0]);
    let whole = emitter.program.n_elements(step.outputs[0]) == emitter.program.n_elements(joined.outputs[0]);
    if !is_alike || !whole || mask.is_some_and(|mask| view.learns[mask] || emitter.rank(mask) > 4) {
        return None;
    }
    let join = |emitter: &mut Emitter, id: Id| {
        let shape = emitter.shape(id).to_vec();
        emitter.reshape(id, &[shape[0], shape[1], shape[2] * shape[3]])
    };
    let mut inputs = vec![join(emitter, q), join(emitter, k), join(emitter, v)];
    inputs.extend(mask);
    let [y, _] = emitter.attention(inputs, n_heads, scale);
    let shape = emitter.shape(step.outputs[0]).to_vec();
    Some(if emitter.shape(y) == shape { y } else { emitter.reshape(y, &shape) })
}

fn is_transpose(step: &Step, permutation: &[usize]) -> bool {
    matches!(&step.primitive, Primitive::Transpose(found) if found == permutation)
}

fn is_product(step: &Step) -> bool {
    matches!(step.primitive, Primitive::MatMul { transpose_a: false, transpose_b: false })
}

/// The value `[batch, tokens, heads, size]` behind a transposition to heads.
fn split_heads(emitter: &Emitter, view: &View<'_>, id: Id, permutation: &[usize]) -> Option<Id> {
    let transposed = view.sole(id).filter(|step| is_transpose(step, permutation))?;
    Some(transposed.inputs[0]).filter(|&id| emitter.rank(id) == 4)
}

/// Scores without what is added to them, and that.
fn masked(emitter: &Emitter, view: &View<'_>, id: Id) -> (Id, Option<Id>) {
    match view.sole(id) {
        Some(Step { primitive: Primitive::Binary(Binary::Add), inputs, .. }) => {
            let shape = emitter.shape(id);
            // the scores are of the whole shape and come from a product
            let is_scores = |side: usize| emitter.shape(inputs[side]) == shape && view.learns[inputs[side]];
            match (is_scores(0), is_scores(1)) {
                (true, false) => (inputs[0], Some(inputs[1])),
                (false, true) => (inputs[1], Some(inputs[0])),
                (true, true) | (false, false) => (id, None),
            }
        }
        _ => (id, None),
    }
}

/// Scores before they were multiplied by a constant, and that.
fn scaled(emitter: &Emitter, view: &View<'_>, id: Id) -> (Id, f64) {
    match view.sole(id) {
        Some(Step { primitive: Primitive::Unary(Unary::Affine { scale, shift: 0.0 }), inputs, .. }) => {
            (inputs[0], f64::from(*scale))
        }
        Some(Step { primitive: Primitive::Binary(function @ (Binary::Mul | Binary::Div)), inputs, .. }) => {
            match number(emitter, inputs[1]) {
                Some(factor) if *function == Binary::Mul => (inputs[0], factor),
                Some(factor) => (inputs[0], 1.0 / factor),
                None => (id, 1.0),
            }
        }
        _ => (id, 1.0),
    }
}

/// The only element of a constant.
fn number(emitter: &Emitter, id: Id) -> Option<f64> {
    match &emitter.program.values[id] {
        Value { kind: Kind::Float, source: Source::Constant(tensor), .. } => numbers::number(tensor),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! What is fused computes what it computed, and so do its gradients.

    use super::super::compile::Mode;
    use super::super::program::{Primitive, Program};
    use super::super::testing::{Inputs, close, finite_differences, numbers, request, run_generic, run_host};
    use crate::graph::op::{self, Op};
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{Dim, Graph, GraphBuilder, Name, TensorType};

    /// The mean of the squares, as a loss.
    fn loss(builder: &mut GraphBuilder, y: &Name) -> Name {
        let squares = builder.node(Op::Mul, &[y, y]);
        let reduce = op::Reduce { keepdims: false, noop_with_empty_axes: false };
        builder.node(Op::ReduceMean(reduce), &[&squares])
    }

    fn transposed(builder: &mut GraphBuilder, x: &Name, perm: &[i64]) -> Name {
        builder.node(Op::Transpose(op::Transpose { perm: perm.to_vec() }), &[x])
    }

    fn reshaped(builder: &mut GraphBuilder, x: &Name, shape: &[i64]) -> Name {
        let shape = builder.initializer("shape", Tensor::vector(shape.to_vec()));
        builder.node(Op::Reshape(op::Reshape { allowzero: false }), &[x, &shape])
    }

    /// Two heads of four over three tokens, with a mask, as exporters write it.
    fn encoder() -> (Graph, Vec<Name>, Name, Name) {
        let mut builder = GraphBuilder::new("attention");
        let x = builder.input("x", TensorType::new(DType::F64, [2, 3, 8].map(Dim::from)));
        let mut learns = Vec::new();
        let mut project = |builder: &mut GraphBuilder, perm: &[i64]| {
            let weight = builder.initializer("weight", numbers(&[8, 8]));
            let bias = builder.initializer("bias", numbers(&[8]));
            let product = builder.node(Op::MatMul, &[&x, &weight]);
            let sum = builder.node(Op::Add, &[&product, &bias]);
            learns.extend([weight, bias]);
            let heads = reshaped(builder, &sum, &[2, 3, 2, 4]);
            transposed(builder, &heads, perm)
        };
        let q = project(&mut builder, &[0, 2, 1, 3]);
        let k = project(&mut builder, &[0, 2, 3, 1]);
        let v = project(&mut builder, &[0, 2, 1, 3]);
        let scores = builder.node(Op::MatMul, &[&q, &k]);
        let two = builder.initializer("two", Tensor::scalar(2f64));
        let scaled = builder.node(Op::Div, &[&scores, &two]);
        let mask = builder.initializer("mask", numbers(&[2, 1, 1, 3]));
        let masked = builder.node(Op::Add, &[&scaled, &mask]);
        let probabilities = builder.node(Op::Softmax(op::Softmax { axis: -1 }), &[&masked]);
        let weighted = builder.node(Op::MatMul, &[&probabilities, &v]);
        let joined = transposed(&mut builder, &weighted, &[0, 2, 1, 3]);
        let y = reshaped(&mut builder, &joined, &[2, 3, 8]);
        let loss = loss(&mut builder, &y);
        builder.output(&loss);
        (builder.finish().expect("a graph"), learns, probabilities, loss)
    }

    fn count(program: &Program, is: impl Fn(&Primitive) -> bool) -> usize {
        program.steps.iter().filter(|step| is(&step.primitive)).count()
    }

    #[track_caller]
    fn check(graph: &Graph, inputs: &Inputs, learns: &[Name], wanted: &[Name], loss: &Name) -> Program {
        let request = request(inputs, Mode::Inference, wanted, Some(loss), learns);
        let (values, gradients) = run_generic(graph, inputs, &request).expect("it runs");
        for (name, found) in &gradients {
            let expected = finite_differences(graph, inputs, loss, name);
            close(name.as_str(), found, &Tensor::new(found.shape(), expected).expect("as long"), 1e-5);
        }
        let single = run_host(graph, inputs, &request).expect("it runs");
        let double = values.iter().chain(gradients.iter().map(|(_, gradient)| gradient));
        single.iter().zip(double).for_each(|(single, double)| close("on the host", single, double, 1e-4));
        Program::compile(graph, &request).expect("it compiles")
    }

    #[test]
    fn attention_is_one_step() {
        let (graph, learns, probabilities, loss) = encoder();
        let inputs: Inputs = [(Name::from("x"), numbers(&[2, 3, 8]))].into_iter().collect();
        let program = check(&graph, &inputs, &learns, &[], &loss);
        assert_eq!(count(&program, |primitive| matches!(primitive, Primitive::Attention { .. })), 1);
        assert_eq!(count(&program, |primitive| matches!(primitive, Primitive::Linear { .. })), 3);
        assert_eq!(count(&program, |primitive| matches!(primitive, Primitive::Softmax(_))), 0);
        // somebody wants to see the probabilities
        let program = check(&graph, &inputs, &learns, &[probabilities], &loss);
        assert_eq!(count(&program, |primitive| matches!(primitive, Primitive::Attention { .. })), 0);
        // a mask that learns has a gradient
        let mask = [Name::from("mask")];
        let program = check(&graph, &inputs, &mask, &[], &loss);
        assert_eq!(count(&program, |primitive| matches!(primitive, Primitive::Attention { .. })), 0);
    }

    #[test]
    fn relu_is_part_of_the_layer_before_it() {
        let mut builder = GraphBuilder::new("layer");
        let x = builder.input("x", TensorType::new(DType::F64, [4, 3].map(Dim::from)));
        let weight = builder.initializer("weight", numbers(&[5, 3]));
        let bias = builder.initializer("bias", numbers(&[5]));
        let gemm = op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        let z = builder.node(Op::Gemm(gemm), &[&x, &weight, &bias]);
        let y = builder.node(Op::Relu, &[&z]);
        let loss = loss(&mut builder, &y);
        builder.output(&loss);
        let graph = builder.finish().expect("a graph");
        let inputs: Inputs = [(Name::from("x"), numbers(&[4, 3]))].into_iter().collect();
        let learns = [weight, bias];
        let program = check(&graph, &inputs, &learns, &[], &loss);
        assert_eq!(count(&program, |primitive| matches!(primitive, Primitive::Linear { relu: true, .. })), 1);
        let program = check(&graph, &inputs, &learns, &[z], &loss);
        assert_eq!(count(&program, |primitive| matches!(primitive, Primitive::Linear { relu: true, .. })), 0);
    }
}
