//! Teachers made of teachers: the mean of several, and one that knows some of the classes.
//!
//! Both are networks like any others: their values can be kept, and what they are worth and cost can be measured.

use super::DistillError;
use super::objective::Ends;
use crate::graph::op::{Gather, Op};
use crate::graph::patch::beside;
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, Name, TensorType, ValueInfo};
use crate::learn::train::behind::Behind;

/// One of several teachers.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What its values' names begin with.
    pub name: &'a str,
    /// The network.
    pub graph: &'a Graph,
    /// Its output.
    pub output: &'a Name,
    /// Its part in the mean, in proportion to the others.
    pub weight: f64,
}

/// Several teachers in one network whose only output is the weighted mean of their logits, the logarithm of the geometric mean of
/// what they predict up to a constant: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.
/// Inner values are named after the teacher and its value.
///
/// # Errors
/// When they read other inputs, or give outputs of other types, or the weights have no positive sum.
pub fn mean(members: &[Member<'_>]) -> Result<(Graph, Name), DistillError> {
    let sum: f64 = members.iter().map(|member| member.weight).sum();
    if members.iter().any(|member| member.weight.is_nan() || member.weight < 0.0) || !(sum > 0.0 && sum.is_finite()) {
        let weights: Vec<String> = members.iter().map(|member| member.weight.to_string()).collect();
        let (value, range) = (weights.join(", "), "numbers from 0, not all of them 0");
        return Err(DistillError::Option { objective: "teacher", option: "weight", value, range });
    }
    let graphs: Vec<(&str, &Graph)> = members.iter().map(|member| (member.name, member.graph)).collect();
    let joined = beside("teachers", &graphs)?;
    let types = infer(&joined, &Bindings::default())?;
    let logits: Vec<(Name, TensorType)> = members
        .iter()
        .map(|Member { name, graph, output, .. }| {
            let logits = Name::from(format!("{name}.{}", Ends::of(graph, output).logits));
            let tensor_type = types.tensor(&logits).cloned();
            tensor_type
                .map(|tensor_type| (logits, tensor_type))
                .ok_or_else(|| unfit(output, "is no tensor".to_string()))
        })
        .collect::<Result<_, _>>()?;
    for (name, tensor_type) in &logits[1..] {
        if last(tensor_type) != last(&logits[0].1) {
            let problem = format!("is {tensor_type}, and `{}` {}", logits[0].0, logits[0].1);
            return Err(unfit(name, problem));
        }
    }
    let mut behind = Behind::new(&joined, "mean");
    let parts: Vec<Name> = logits
        .iter()
        .zip(members)
        .map(|((name, tensor_type), member)| {
            let single = behind.single(name, tensor_type.dtype);
            behind.times(&single, member.weight / sum)
        })
        .collect();
    let mean = behind.node(Op::Sum, &parts.iter().collect::<Vec<_>>());
    let output = ValueInfo::new(&mean, TensorType { dtype: DType::F32, ..logits[0].1.clone() });
    Ok((behind.finish_with(&joined.outputs, output)?, mean))
}

/// A teacher of these classes alone: its logits of them, in this order.
///
/// # Errors
/// When its logits have no last dimension of known size, or not so many classes.
pub fn narrowed(teacher: &Graph, output: &Name, classes: &[usize]) -> Result<(Graph, Name), DistillError> {
    let logits = Ends::of(teacher, output).logits;
    let types = infer(teacher, &Bindings::default())?;
    let tensor_type = types.tensor(&logits).ok_or_else(|| unfit(&logits, "is no tensor".to_string()))?;
    let n_classes = last(tensor_type).and_then(|dim| dim.known());
    let indices: Option<Vec<i64>> = classes
        .iter()
        .map(|&class| i64::try_from(class).ok().filter(|_| n_classes.is_some_and(|n_classes| class < n_classes)))
        .collect();
    let indices =
        indices.ok_or_else(|| unfit(&logits, format!("is {tensor_type}, without the classes {classes:?}")))?;
    let mut behind = Behind::new(teacher, "classes");
    let single = behind.single(&logits, tensor_type.dtype);
    let indices = behind.tensor("indices", Tensor::vector(indices));
    let some = behind.node(Op::Gather(Gather { axis: -1 }), &[&single, &indices]);
    let mut shape = tensor_type.shape.clone();
    if let Some(last) = shape.as_mut().and_then(|dims| dims.last_mut()) {
        *last = classes.len().into();
    }
    let output = ValueInfo::new(&some, TensorType { dtype: DType::F32, shape });
    Ok((behind.finish_with(&teacher.outputs, output)?, some))
}

fn last(tensor_type: &TensorType) -> Option<&Dim> {
    tensor_type.shape.as_ref()?.last()
}

fn unfit(name: &Name, problem: String) -> DistillError {
    DistillError::Target { value: name.clone(), problem, remedy: "give teachers of the same classes" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::GraphBuilder;
    use crate::graph::eval::run;
    use crate::graph::op::Softmax;

    fn linear(input: &str, weight: [f32; 6], is_softmax: bool) -> (Graph, Name) {
        let mut builder = GraphBuilder::new("linear");
        let x = builder.input(input, TensorType::new(DType::F32, [Dim::from("batch"), 2.into()]));
        let weight = builder.initializer("weight", Tensor::new(&[2, 3], weight.to_vec()).expect("six"));
        let mut y = builder.node(Op::MatMul, &[&x, &weight]);
        if is_softmax {
            y = builder.node(Op::Softmax(Softmax { axis: -1 }), &[&y]);
        }
        builder.output(&y);
        (builder.finish().expect("whole"), y)
    }

    fn of(graph: &Graph, input: &str) -> Vec<f32> {
        let x = Tensor::new(&[1, 2], vec![1f32, 2.0]).expect("two");
        let given = indexmap::IndexMap::from([(Name::from(input), x)]);
        let outputs = run(graph, &given).expect("it runs");
        outputs.values().next().expect("one").as_slice::<f32>().expect("f32").to_vec()
    }

    #[test]
    fn the_mean_of_teachers_is_that_of_their_logits() {
        let (one, of_one) = linear("x", [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], true);
        let (other, of_other) = linear("image", [0.0, 4.0, 0.0, 0.0, 0.0, 4.0], false);
        let member = |name, graph, output, weight| Member { name, graph, output, weight };
        let [one, other] = [member("one", &one, &of_one, 3.0), member("other", &other, &of_other, 1.0)];
        let (graph, _) = mean(&[one, other]).expect("a mean");
        assert_eq!(of(&graph, "x"), [0.75, 2.5, 2.0]);
        assert!(mean(&[Member { weight: 0.0, ..one }]).is_err());
        let (few, of_few) = narrowed(other.graph, other.output, &[2, 1]).expect("there are three");
        assert_eq!(of(&few, "image"), [8.0, 4.0]);
        let refused = mean(&[one, member("few", &few, &of_few, 1.0)]).expect_err("other classes").to_string();
        assert!(refused.contains("one."), "{refused}");
        assert!(narrowed(one.graph, one.output, &[3]).is_err());
    }
}
