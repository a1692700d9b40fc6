//! What is known of the inputs of products: their second moments `E[x xᵀ]`, over batches that are run and forgotten.
//!
//! An error `D` of a weight changes what the product makes by `E|D x|² = tr(D E[x xᵀ] Dᵀ)` on average: nothing else of the data
//! is needed to round it well. Products that read the same value in the same way share one matrix. Of large images some places
//! are looked at, spread over each: neighbours tell little.

use indexmap::IndexMap;

use super::super::QuantizeError;
use super::columns::for_rows;
use super::product::{Product, Read};
use crate::graph::Name;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;
use crate::learn::kernels::gemm::{Matrix, gemm};

/// Vectors whose products are summed in `f32` before they are added to what was before.
const N_TOGETHER: usize = 1024;

/// Sums of `x xᵀ`, by group of channels.
#[derive(Clone, Debug)]
pub(super) struct Gram {
    pub(super) read: Read,
    n_columns: usize,
    /// Vectors that were summed, by group.
    n_vectors: u64,
    sums: Vec<f64>,
}

impl Gram {
    fn new(product: &Product) -> Gram {
        let (n_groups, n_columns) = (product.matrices.n_groups, product.matrices.n_columns);
        let sums = vec![0.0; n_groups * n_columns * n_columns];
        Gram { read: product.read.clone(), n_columns, n_vectors: 0, sums }
    }

    /// Whether this is what a product reads.
    pub(super) fn is_of(&self, product: &Product) -> bool {
        self.read == product.read && self.n_columns == product.matrices.n_columns
    }

    /// The second moments of a group, row-major.
    pub(super) fn moments(&self, group: usize) -> Vec<f64> {
        let size = self.n_columns * self.n_columns;
        let n = self.n_vectors.max(1) as f64;
        self.sums[group * size..(group + 1) * size].iter().map(|sum| sum / n).collect()
    }

    fn add(&mut self, tensor: &Tensor) -> Result<(), QuantizeError> {
        let n = self.n_columns;
        let mut product = vec![0f32; n * n];
        let (sums, n_vectors) = (&mut self.sums, &mut self.n_vectors);
        for_rows(&self.read, n, tensor, |group, rows| {
            let sums = &mut sums[group * n * n..(group + 1) * n * n];
            for rows in rows.chunks((N_TOGETHER * n).max(1)) {
                let x = Matrix::rows(rows, n);
                gemm([n, n, rows.len() / n.max(1)], 1.0, x.transposed(), x, false, &mut product);
                sums.iter_mut().zip(&product).for_each(|(sum, &product)| *sum += f64::from(product));
            }
            if group == 0 {
                *n_vectors += (rows.len() / n.max(1)) as u64;
            }
        })?;
        Ok(())
    }

    fn check(&self) -> Result<(), QuantizeError> {
        match self.sums.iter().find(|sum| !sum.is_finite()) {
            None => Ok(()),
            Some(sum) => {
                let what = if sum.is_nan() { "not a number" } else { "infinite" };
                Err(QuantizeError::NotFinite { value: self.read.value.clone(), what })
            }
        }
    }
}

/// The values that must be seen for these products, each once.
pub(super) fn values<'a>(products: impl IntoIterator<Item = &'a Product>) -> Vec<Name> {
    let mut values: Vec<Name> = Vec::new();
    for product in products {
        if !values.contains(&product.read.value) {
            values.push(product.read.value.clone());
        }
    }
    values
}

/// The second moments of what these products read. `network` gives [`values()`] in their order; `told` how many samples are done.
///
/// # Errors
/// When there are no samples, the network cannot be run, or a value is no finite number.
pub(super) fn grams<'a, E: From<QuantizeError>>(
    network: &mut dyn Forward,
    products: impl IntoIterator<Item = &'a Product>,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    mut told: impl FnMut(u64),
) -> Result<Vec<Gram>, E> {
    let products: Vec<&Product> = products.into_iter().collect();
    let values = values(products.iter().copied());
    let mut grams: Vec<Gram> = Vec::new();
    for product in products {
        if !grams.iter().any(|gram| gram.is_of(product)) {
            grams.push(Gram::new(product));
        }
    }
    let mut n_samples = 0;
    for batch in batches {
        let batch = batch?;
        let n_rows = batch.values().next().and_then(|tensor| tensor.shape().first().copied()).unwrap_or(1);
        let tensors = network.forward(&batch).map_err(QuantizeError::from)?;
        for (value, tensor) in values.iter().zip(&tensors) {
            grams.iter_mut().filter(|gram| gram.read.value == *value).try_for_each(|gram| gram.add(tensor))?;
        }
        n_samples += n_rows as u64;
        told(n_samples);
    }
    if n_samples == 0 {
        return Err(QuantizeError::NoSamples.into());
    }
    grams.iter().try_for_each(Gram::check)?;
    Ok(grams)
}
