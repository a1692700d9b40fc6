//! Inputs to run models on: arrays of a file, as many at a time as a model takes.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::load::Binding;
use crate::data::npz;
use crate::graph::tensor::Tensor;
use crate::measure::inputs::{self, Bindings};
use crate::measure::runtime::{Dim, ValueInfo};

/// A tensor for every input of a model.
pub(super) type Feed = Vec<(String, Tensor)>;

/// The arrays of a `.npz` that are named after the inputs (`x` for a single one): one feed where they fit the inputs whole,
/// else one for every row.
pub(super) fn from_file(path: &Path, infos: &[ValueInfo]) -> anyhow::Result<Vec<Feed>> {
    from_arrays(&npz::read(path)?, infos).with_context(|| format!("{} does not fit the model", path.display()))
}

/// Seeded random feeds, the first of this seed, the next of the next.
pub(super) fn random(infos: &[ValueInfo], bound: &[Binding], seed: u64, n: u64) -> anyhow::Result<Vec<Feed>> {
    let bindings: Bindings = bound.iter().map(|binding| (binding.symbol.clone(), binding.size)).collect();
    (seed..seed.saturating_add(n.max(1))).map(|seed| Ok(inputs::random(infos, &bindings, seed)?)).collect()
}

/// One feed where the arrays fit the inputs whole, else one for every row.
fn from_arrays(arrays: &[(String, Tensor)], infos: &[ValueInfo]) -> anyhow::Result<Vec<Feed>> {
    let find = |info: &ValueInfo| {
        let named = |name: &str| arrays.iter().find(|(array, _)| array == name);
        let array = named(&info.name).or_else(|| if infos.len() == 1 { named("x") } else { None });
        let known: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
        array
            .map(|(_, tensor)| tensor)
            .with_context(|| format!("no array `{}`; there are {}", info.name, known.join(", ")))
    };
    let whole: Vec<&Tensor> = infos.iter().map(find).collect::<anyhow::Result<_>>()?;
    if infos.iter().zip(&whole).all(|(info, tensor)| fits(info, tensor.shape())) {
        return Ok(vec![infos.iter().zip(whole).map(|(info, tensor)| (info.name.clone(), tensor.clone())).collect()]);
    }
    let n_rows: BTreeSet<usize> = whole.iter().map(|tensor| tensor.shape().first().copied().unwrap_or(0)).collect();
    let n_rows = match n_rows.into_iter().collect::<Vec<_>>()[..] {
        [] | [0] => bail!("the arrays have no rows"),
        [n_rows] => n_rows,
        ref several => bail!("the arrays have different numbers of rows: {several:?}"),
    };
    let feed = |row: usize| -> anyhow::Result<Feed> {
        let rows = infos.iter().zip(&whole).map(|(info, tensor)| {
            let part = tensor.rows(row, row + 1)?;
            if !fits(info, part.shape()) {
                bail!("input `{}` is {info}, a row of the array is {:?}", info.name, part.shape());
            }
            Ok((info.name.clone(), part))
        });
        rows.collect()
    };
    (0..n_rows).map(feed).collect()
}

fn fits(info: &ValueInfo, shape: &[usize]) -> bool {
    let Some(dims) = &info.dims else { return true };
    dims.len() == shape.len()
        && dims.iter().zip(shape).all(|(dim, size)| match dim {
            Dim::Known(known) => known == size,
            Dim::Symbol(_) | Dim::Unknown => true,
        })
}
