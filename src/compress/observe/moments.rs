//! What is known of the inputs of products: their second moments `E[x xᵀ]`, over batches that are run and forgotten.
//!
//! An error `D` of a weight changes what the product makes by `E|D x|² = tr(D E[x xᵀ] Dᵀ)` on average: nothing else of the data
//! is needed to round it well. Products that read the same value in the same way share one matrix. Of large images some places
//! are looked at, spread over each: neighbours tell little.

use indexmap::IndexMap;

use super::product::{Product, Read};
use super::rows::for_rows;
use super::{ObserveError, for_batches};
use crate::graph::Name;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;
use crate::learn::kernels::gemm::{Matrix, gemm};

/// Vectors whose products are summed in `f32` before they are added to what was before.
const N_TOGETHER: usize = 1024;

/// Sums of `x xᵀ`, by group of channels.
#[derive(Clone, Debug)]
pub(in crate::compress) struct Gram {
    pub(in crate::compress) read: Read,
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
    pub(in crate::compress) fn is_of(&self, product: &Product) -> bool {
        self.read == product.read && self.n_columns == product.matrices.n_columns
    }

    /// The second moments of a group, row-major.
    pub(in crate::compress) fn moments(&self, group: usize) -> Vec<f64> {
        let size = self.n_columns * self.n_columns;
        let n = self.n_vectors.max(1) as f64;
        self.sums[group * size..(group + 1) * size].iter().map(|sum| sum / n).collect()
    }

    fn add(&mut self, tensor: &Tensor) -> Result<(), ObserveError> {
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

    fn check(&self) -> Result<(), ObserveError> {
        match self.sums.iter().find(|sum| !sum.is_finite()) {
            None => Ok(()),
            Some(&sum) => Err(ObserveError::not_finite(&self.read.value, sum)),
        }
    }
}

/// The values that must be seen for these products, each once.
pub(in crate::compress) fn values<'a>(products: impl IntoIterator<Item = &'a Product>) -> Vec<Name> {
    let mut values: Vec<Name> = Vec::new();
    for product in products {
        if !values.contains(&product.read.value) {
            values.push(product.read.value.clone());
        }
    }
    values
}

/// What the second moments of these products take, those that they share once.
pub(in crate::compress) fn n_bytes<'a>(products: impl IntoIterator<Item = &'a Product>) -> usize {
    let mut known: Vec<&Product> = Vec::new();
    for product in products {
        let is_same =
            |other: &&Product| other.read == product.read && other.matrices.n_columns == product.matrices.n_columns;
        if !known.iter().any(is_same) {
            known.push(product);
        }
    }
    let size = |product: &&Product| {
        let n_columns = product.matrices.n_columns;
        product.matrices.n_groups.saturating_mul(n_columns.saturating_mul(n_columns)).saturating_mul(size_of::<f64>())
    };
    known.iter().map(size).fold(0, usize::saturating_add)
}

/// The second moments of what these products read. `network` gives [`values()`] in their order; `told` how many samples are done.
///
/// # Errors
/// When there are no samples, the network cannot be run, or a value is no finite number.
pub(in crate::compress) fn grams<'a, E: From<ObserveError>>(
    network: &mut dyn Forward,
    products: impl IntoIterator<Item = &'a Product>,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    told: impl FnMut(u64),
) -> Result<Vec<Gram>, E> {
    let products: Vec<&Product> = products.into_iter().collect();
    let values = values(products.iter().copied());
    let mut grams: Vec<Gram> = Vec::new();
    for product in products {
        if !grams.iter().any(|gram| gram.is_of(product)) {
            grams.push(Gram::new(product));
        }
    }
    for_batches(network, batches, told, |tensors| {
        let mut read = values.iter().zip(&tensors);
        read.try_for_each(|(value, tensor)| {
            grams.iter_mut().filter(|gram| gram.read.value == *value).try_for_each(|gram| gram.add(tensor))
        })
    })?;
    grams.iter().try_for_each(Gram::check)?;
    Ok(grams)
}
