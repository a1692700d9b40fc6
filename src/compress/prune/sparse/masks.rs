//! Which elements of a network's weights are out, and that they are zero.

use indexmap::IndexMap;

use super::super::PruneError;
use super::plan::Plan;
use crate::graph::patch::Patch;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name};

/// Which elements of a tensor are out: a bit each, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    shape: Vec<usize>,
    words: Vec<u64>,
}

impl Mask {
    /// A mask over a tensor of this shape; elements that nothing is said of stay.
    pub fn new(shape: &[usize], is_out: impl IntoIterator<Item = bool>) -> Mask {
        let n: usize = shape.iter().product();
        let mut words = vec![0u64; n.div_ceil(64)];
        for (position, _) in is_out.into_iter().take(n).enumerate().filter(|(_, is_out)| *is_out) {
            words[position / 64] |= 1 << (position % 64);
        }
        Mask { shape: shape.to_vec(), words }
    }

    /// The shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements of the tensor.
    pub fn n(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements that are out.
    pub fn n_out(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the element at this place is out.
    pub fn is_out(&self, position: usize) -> bool {
        self.words.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// Sets what is out to zero.
    pub fn apply(&self, values: &mut [f32]) {
        for (values, &word) in values.chunks_mut(64).zip(&self.words) {
            let out = values.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 1);
            out.for_each(|(_, value)| *value = 0.0);
        }
    }
}

/// Masks by the name of their initializer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    masks: IndexMap<Name, Mask>,
}

impl Masks {
    /// What is zero in the weights of a plan: a file that comes with zeros keeps them. Weights without zeros have no mask.
    ///
    /// # Errors
    /// When a weight is not the network's.
    pub fn of_zeros(graph: &Graph, plan: &Plan) -> Result<Masks, PruneError> {
        let mut masks = Masks::default();
        for operand in &plan.operands {
            let constant = operand.constant(graph)?;
            let mask = Mask::new(constant.shape(), constant.as_slice::<f32>()?.iter().map(|&weight| weight == 0.0));
            if mask.n_out() > 0 {
                masks.insert(&operand.name, mask);
            }
        }
        Ok(masks)
    }

    /// Adds a mask, or takes another in place of one.
    pub fn insert(&mut self, name: &Name, mask: Mask) {
        self.masks.insert(name.clone(), mask);
    }

    /// Adds those of others, in place of those for the same initializers.
    pub fn extend(&mut self, others: Masks) {
        self.masks.extend(others.masks);
    }

    /// The mask of an initializer.
    pub fn get(&self, name: &Name) -> Option<&Mask> {
        self.masks.get(name)
    }

    /// All, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Mask)> {
        self.masks.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }
}

/// The network with zeros where its masks say so.
///
/// # Errors
/// When an initializer is missing, of another shape or of no `f32`.
pub fn apply(graph: &Graph, masks: &Masks) -> Result<Graph, PruneError> {
    let mut patch = Patch::new(graph);
    for (name, mask) in masks.iter() {
        let constant = masked(graph, name, mask)?;
        let mut weights = constant.to_vec::<f32>()?;
        mask.apply(&mut weights);
        patch.replace_initializer(name, Tensor::new(constant.shape(), weights)?);
    }
    Ok(patch.apply(None)?)
}

/// That every element that is out is exactly zero in the network.
///
/// # Errors
/// Names the first weight where it is not, and as [`apply`].
pub fn hold(graph: &Graph, masks: &Masks) -> Result<(), PruneError> {
    for (name, mask) in masks.iter() {
        let weights = masked(graph, name, mask)?.as_slice::<f32>()?;
        let n_kept_out =
            weights.iter().enumerate().filter(|(position, weight)| mask.is_out(*position) && **weight != 0.0);
        let n = n_kept_out.count();
        if n > 0 {
            let problem = format!("is not kept: {n} of the {} elements that are out are not zero", mask.n_out());
            return Err(PruneError::Mask { weight: name.clone(), problem });
        }
    }
    Ok(())
}

fn masked<'a>(graph: &'a Graph, name: &Name, mask: &Mask) -> Result<&'a Tensor, PruneError> {
    let wrong = |problem: String| PruneError::Mask { weight: name.clone(), problem };
    let constant = graph.constant(name).ok_or_else(|| wrong("is of no constant of the network".to_string()))?;
    if constant.shape() != mask.shape() {
        return Err(wrong(format!("has the shape {:?}, the weight {:?}", mask.shape(), constant.shape())));
    }
    Ok(constant)
}
