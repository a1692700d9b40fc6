//! Where objectives are built: the values that they compare, checked, and what several of them need.

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;

use super::attach::{Teacher, TeacherInput, tensor_types};
use super::options::Pair;
use crate::compress::distill::DistillError;
use crate::compress::distill::error::Side;
use crate::graph::op::{AutoPad, AveragePool, Cast, Conv, Op, Range, Resize, ResizeMode, RoundMode, Shape};
use crate::graph::shape::Types;
use crate::graph::spelling::distance;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Dim, Graph, Name, TensorType};
use crate::learn::train::behind::Behind;
use crate::learn::train::init::normal_values;

/// What is added to the square of a length.
pub(super) const LENGTH_EPSILON: f64 = 1e-12;

/// An output of a network, and the logits that it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The output.
    pub output: Name,
    /// What the Softmax, LogSoftmax or Sigmoid reads that makes the output; the output itself where none does.
    pub logits: Name,
}

impl Ends {
    /// The ends of a network at this output.
    pub fn of(graph: &Graph, output: &Name) -> Ends {
        let uses = Uses::of(graph);
        let last = uses.producer(output);
        let last = last.filter(|node| matches!(node.op, Op::Softmax(_) | Op::LogSoftmax(_) | Op::Sigmoid));
        let logits = last.and_then(|node| node.input(0)).unwrap_or(output).clone();
        Ends { output: output.clone(), logits }
    }
}

/// A value that is compared.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    /// What nodes read: the value in `f32`, or the input with the teacher's value.
    pub(super) name: Name,
    /// Whose value it is.
    pub(super) side: Side,
    /// The network's own name for it.
    pub(super) value: Name,
    /// Its dimensions, the batch first.
    pub(super) dims: Vec<Dim>,
}

impl Tap {
    pub(super) fn rank(&self) -> usize {
        self.dims.len()
    }

    /// ``the student's `conv` [batch, 8, 4, 4]``
    pub(super) fn described(&self) -> String {
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        format!("the {}'s `{}` [{}]", self.side, self.value, dims.join(", "))
    }
}

/// A student on its way to a training graph.
pub(super) struct Site<'a> {
    pub(super) behind: Behind,
    /// The objective at work, as it stands in TOML.
    pub(super) objective: &'static str,
    /// The input with the labels, where they are read.
    pub(super) target: Option<Name>,
    /// What the objectives have had learn so far.
    pub(super) learned: Vec<Name>,
    /// The teacher's values that are read so far, by their own names.
    pub(super) inputs: IndexMap<Name, TeacherInput>,
    pub(super) student_ends: Ends,
    pub(super) teacher_ends: Ends,
    student: BTreeMap<Name, TensorType>,
    teacher: &'a BTreeMap<Name, TensorType>,
    /// The student's values that are read in `f32`.
    singles: HashMap<Name, Name>,
    seed: u64,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        behind: Behind,
        student: &Graph,
        types: &Types,
        ends: Ends,
        teacher: &Teacher<'a>,
        seed: u64,
    ) -> Site<'a> {
        Site {
            behind,
            objective: "distill",
            target: None,
            learned: Vec::new(),
            inputs: IndexMap::new(),
            student_ends: ends,
            teacher_ends: teacher.ends.clone(),
            student: tensor_types(student, types),
            teacher: teacher.types,
            singles: HashMap::new(),
            seed,
        }
    }

    pub(super) fn unfit(&self, problem: String, remedy: &'static str) -> DistillError {
        DistillError::Unfit { objective: self.objective, problem, remedy }
    }

    /// Both values of a pair.
    pub(super) fn pair(&mut self, pair: &Pair) -> Result<[Tap; 2], DistillError> {
        Ok([self.tap(Side::Student, &pair.student)?, self.tap(Side::Teacher, &pair.teacher)?])
    }

    /// The logits of both, of the same size.
    pub(super) fn logits(&mut self) -> Result<[Tap; 2], DistillError> {
        let pair = Pair { student: self.student_ends.logits.clone(), teacher: self.teacher_ends.logits.clone() };
        self.ends(&pair)
    }

    /// The outputs of both, of the same size.
    pub(super) fn outputs(&mut self) -> Result<[Tap; 2], DistillError> {
        let pair = Pair { student: self.student_ends.output.clone(), teacher: self.teacher_ends.output.clone() };
        self.ends(&pair)
    }

    fn ends(&mut self, pair: &Pair) -> Result<[Tap; 2], DistillError> {
        let taps = self.pair(pair)?;
        self.same_dims(&taps, "give a teacher and a student of the same classes or outputs")?;
        Ok(taps)
    }

    /// Refuses values that differ in a dimension that is known of both.
    pub(super) fn same_dims(&self, [s, t]: &[Tap; 2], remedy: &'static str) -> Result<(), DistillError> {
        let differ = |(s, t): (&Dim, &Dim)| s.known().zip(t.known()).is_some_and(|(s, t)| s != t);
        let is_same = s.rank() == t.rank() && !s.dims.iter().zip(&t.dims).skip(1).any(differ);
        if is_same {
            Ok(())
        } else {
            Err(self.unfit(format!("{} and {} differ", s.described(), t.described()), remedy))
        }
    }

    /// Refuses values of another rank than these.
    pub(super) fn ranks(&self, taps: &[Tap; 2], ranks: &[usize], remedy: &'static str) -> Result<(), DistillError> {
        match taps.iter().find(|tap| !ranks.contains(&tap.rank())) {
            None => Ok(()),
            Some(tap) => {
                let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
                Err(self.unfit(format!("{} should have {} axes", tap.described(), ranks.join(" or ")), remedy))
            }
        }
    }

    /// The size of an axis.
    pub(super) fn size(&self, tap: &Tap, axis: usize) -> Result<usize, DistillError> {
        tap.dims.get(axis).and_then(Dim::known).filter(|&size| size > 0).ok_or_else(|| {
            let problem = format!("the size of axis {axis} of {} is not known or zero", tap.described());
            self.unfit(problem, "fix it in the model's inputs, or name other values")
        })
    }

    /// The size of an axis for a Reshape.
    pub(super) fn length(&self, tap: &Tap, axis: usize) -> Result<i64, DistillError> {
        Ok(signed(self.size(tap, axis)?))
    }

    /// The input with the labels.
    pub(super) fn labels(&self) -> Result<Name, DistillError> {
        let none = || self.unfit("it needs labels".to_string(), "leave it out, or give labels");
        self.target.clone().ok_or_else(none)
    }

    fn tap(&mut self, side: Side, name: &Name) -> Result<Tap, DistillError> {
        let (types, output) = match side {
            Side::Student => (&self.student, &self.student_ends.output),
            Side::Teacher => (self.teacher, &self.teacher_ends.output),
        };
        let Some(known) = types.get(name) else {
            let nearest = nearest(name, types.keys());
            return Err(DistillError::Tap { objective: self.objective, side, tap: name.clone(), nearest });
        };
        if !known.dtype.is_float() {
            let problem = format!("the {side}'s `{name}` is of {}", known.dtype);
            return Err(self.unfit(problem, "name a value of floating point"));
        }
        let batch = types.get(output).and_then(|known| known.shape.as_ref()?.first());
        let Some(dims) = known.shape.clone().filter(|dims| !dims.is_empty()) else {
            let problem = format!("the {side}'s `{name}` is {known}, without known axes");
            return Err(self.unfit(problem, "name a value with the batch first"));
        };
        let is_batch = match (&dims[0], batch) {
            (Dim::Unknown, _) | (_, None | Some(Dim::Unknown)) => true,
            (first, Some(batch)) => first == batch,
        };
        let tap = Tap { name: name.clone(), side, value: name.clone(), dims };
        if !is_batch {
            let problem = format!("the first axis of {} is not the batch", tap.described());
            return Err(self.unfit(problem, "name a value with the batch first"));
        }
        let dtype = known.dtype;
        Ok(match side {
            Side::Student => Tap { name: self.single(name, dtype), ..tap },
            Side::Teacher => self.input(tap),
        })
    }

    /// A value of the student in `f32`.
    fn single(&mut self, name: &Name, dtype: DType) -> Name {
        if let Some(single) = self.singles.get(name) {
            return single.clone();
        }
        let single = self.behind.single(name, dtype);
        self.singles.insert(name.clone(), single.clone());
        single
    }

    /// The input with a value of the teacher: of the student's batch, its symbols those of the student or any size.
    fn input(&mut self, tap: Tap) -> Tap {
        let student = self.student.get(&self.student_ends.output).and_then(|known| known.shape.as_ref()?.first());
        let symbols: Vec<&Dim> = self.student.values().filter_map(|known| known.shape.as_ref()).flatten().collect();
        let rest = tap.dims.iter().skip(1).map(|dim| match dim {
            Dim::Known(_) => dim.clone(),
            Dim::Symbol(_) if symbols.contains(&dim) => dim.clone(),
            Dim::Symbol(_) | Dim::Unknown => Dim::Unknown,
        });
        let dims: Vec<Dim> = student.cloned().into_iter().chain(rest).collect();
        let input = self.inputs.entry(tap.value.clone()).or_insert_with(|| {
            let tensor_type = TensorType { dtype: DType::F32, shape: Some(dims.clone()) };
            let input = self.behind.input(&format!("teacher.{}", tap.value), tensor_type.clone());
            TeacherInput { input, value: tap.value.clone(), tensor_type }
        });
        Tap { name: input.input.clone(), dims, ..tap }
    }

    /// A constant that learns, normal of this variance.
    fn learned(&mut self, base: &str, shape: &[usize], variance: f64) -> Result<Name, DistillError> {
        let n: usize = shape.iter().product();
        // the numbers follow from the name, which is known only once it is taken
        let name = self.behind.tensor(base, Tensor::zeros(DType::F32, shape)?);
        let values = normal_values(self.seed, &name, n, variance).into_iter().map(|value| value as f32).collect();
        self.behind.replace(&name, Tensor::new(shape, values)?);
        self.learned.push(name.clone());
        Ok(name)
    }

    /// A constant that learns, the same everywhere at first.
    pub(super) fn learned_constant(&mut self, base: &str, shape: &[usize], value: f64) -> Result<Name, DistillError> {
        let values = vec![value as f32; shape.iter().product()];
        let name = self.behind.tensor(base, Tensor::new(shape, values)?);
        self.learned.push(name.clone());
        Ok(name)
    }

    /// `x W`, features to as many as `size`, along the last axis.
    pub(super) fn linear(&mut self, x: &Name, from: usize, to: usize) -> Result<Name, DistillError> {
        let weight = self.learned("projection.weight", &[from, to], 1.0 / from as f64)?;
        Ok(self.behind.matmul(x, &weight))
    }

    /// A learned linear map of the channels of an image or the features of anything else to as many as the teacher has.
    pub(super) fn projected(&mut self, s: &Tap, t: &Tap) -> Result<Name, DistillError> {
        if s.rank() != 4 {
            let (from, to) = (self.size(s, s.rank() - 1)?, self.size(t, t.rank() - 1)?);
            let product = self.linear(&s.name, from, to)?;
            let bias = self.learned_constant("projection.bias", &[to], 0.0)?;
            return Ok(self.behind.add(&product, &bias));
        }
        let (from, to) = (self.size(s, 1)?, self.size(t, 1)?);
        let weight = self.learned("projection.weight", &[to, from, 1, 1], 1.0 / from as f64)?;
        let bias = self.learned_constant("projection.bias", &[to], 0.0)?;
        Ok(self.behind.node(Op::Conv(Conv::default()), &[&s.name, &weight, &bias]))
    }

    /// Two images at the resolution of the smaller one: pooled where its sizes divide the other's, else resized.
    pub(super) fn meet(&mut self, [s, t]: [Tap; 2]) -> Result<[Tap; 2], DistillError> {
        if s.dims.get(2..) == t.dims.get(2..) && !s.dims[2..].contains(&Dim::Unknown) {
            return Ok([s, t]);
        }
        let sizes = |site: &Site<'_>, tap: &Tap| Ok::<_, DistillError>([site.size(tap, 2)?, site.size(tap, 3)?]);
        let (of_s, of_t) = (sizes(self, &s)?, sizes(self, &t)?);
        let to = [of_s[0].min(of_t[0]), of_s[1].min(of_t[1])];
        Ok([self.brought(s, of_s, to), self.brought(t, of_t, to)])
    }

    fn brought(&mut self, tap: Tap, from: [usize; 2], to: [usize; 2]) -> Tap {
        if from == to {
            return tap;
        }
        let is_whole = from.iter().zip(&to).all(|(from, to)| from.is_multiple_of(*to));
        let name = if is_whole {
            let window: Vec<i64> = from.iter().zip(&to).map(|(from, to)| signed(from / to)).collect();
            let pool = AveragePool {
                auto_pad: AutoPad::NotSet,
                ceil_mode: false,
                count_include_pad: false,
                dilations: Vec::new(),
                kernel_shape: window.clone(),
                pads: Vec::new(),
                strides: window,
            };
            self.behind.node(Op::AveragePool(pool), &[&tap.name])
        } else {
            let resize = Resize {
                antialias: true,
                axes: vec![2, 3],
                exclude_outside: true,
                mode: ResizeMode::Linear,
                ..Resize::default()
            };
            let sizes = self.behind.tensor("sizes", Tensor::vector(to.map(signed).to_vec()));
            self.behind.node_of(Op::Resize(resize), vec![Some(tap.name.clone()), None, None, Some(sizes)])
        };
        let dims = [&tap.dims[..2], &to.map(Dim::Known)].concat();
        Tap { name, dims, ..tap }
    }

    /// Each sample as one row.
    pub(super) fn rows(&mut self, tap: &Tap) -> Name {
        if tap.rank() == 2 { tap.name.clone() } else { self.behind.reshape(&tap.name, &[0, -1]) }
    }

    /// Of length one along the last axis.
    pub(super) fn unit(&mut self, x: &Name) -> Name {
        let squares = self.behind.square(x);
        let sums = self.behind.sum_over(&squares, &[-1]);
        let sums = self.behind.plus(&sums, LENGTH_EPSILON);
        let length = self.behind.node(Op::Sqrt, &[&sums]);
        self.behind.div(x, &length)
    }

    /// One where both samples of a batch are the same, `[n, n]`.
    pub(super) fn eye(&mut self, x: &Name) -> Name {
        let behind = &mut self.behind;
        let n = behind.node(Op::Shape(Shape { start: 0, end: Some(1) }), &[x]);
        let n = behind.node(Op::Squeeze, &[&n]);
        let (zero, one) = (behind.integer(0), behind.integer(1));
        let samples = behind.node(Op::Range(Range { stash_type: 1 }), &[&zero, &n, &one]);
        let (rows, columns) = (behind.unsqueeze(&samples, &[1]), behind.unsqueeze(&samples, &[0]));
        let same = behind.node(Op::Equal, &[&rows, &columns]);
        behind.node(Op::Cast(Cast { to: DType::F32, saturate: true, round_mode: RoundMode::Up }), &[&same])
    }

    /// `(a − b)²`, the mean over all.
    pub(super) fn mean_square(&mut self, a: &Name, b: &Name) -> Name {
        let difference = self.behind.sub(a, b);
        let squares = self.behind.square(&difference);
        self.behind.mean(&squares)
    }

    /// The sum of one term or more.
    pub(super) fn sum_of(&mut self, terms: &[Name]) -> Name {
        match terms {
            [term] => term.clone(),
            terms => self.behind.node(Op::Sum, &terms.iter().collect::<Vec<_>>()),
        }
    }
}

pub(super) fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The three names that are most like one, by the letters to be changed.
fn nearest<'n>(name: &Name, names: impl Iterator<Item = &'n Name>) -> Vec<Name> {
    let mut found: Vec<(usize, &Name)> = names.map(|other| (distance(name, other), other)).collect();
    found.sort();
    found.into_iter().take(3).map(|(_, name)| name.clone()).collect()
}
