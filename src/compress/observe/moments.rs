//! What is known of the inputs of products: their second moments `E[x xᵀ]` and their means, over batches that are run and forgotten.
//!
//! An error `D` of a weight changes what the product makes by `E|D x|² = tr(D E[x xᵀ] Dᵀ)` on average: nothing else of the data
//! is needed to round it well. Products that read the same value in the same way share one matrix. Of large images some places
//! are looked at, spread over each: neighbours tell little.

use indexmap::IndexMap;
use rayon::prelude::*;

use super::product::{Product, Read};
use super::rows::for_rows;
use super::{ObserveError, for_batches};
use crate::graph::Name;
use crate::graph::probe::{Forward, ProbeError};
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
    /// Sums of `x`.
    of_columns: Vec<f64>,
}

impl Gram {
    fn new(product: &Product) -> Gram {
        let (n_groups, n_columns) = (product.matrices.n_groups, product.matrices.n_columns);
        let sums = vec![0.0; n_groups * n_columns * n_columns];
        Gram { read: product.read.clone(), n_columns, n_vectors: 0, sums, of_columns: vec![0.0; n_groups * n_columns] }
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

    /// The means of what a group reads.
    pub(in crate::compress) fn means(&self, group: usize) -> Vec<f64> {
        let n = self.n_vectors.max(1) as f64;
        self.of_columns[group * self.n_columns..(group + 1) * self.n_columns].iter().map(|sum| sum / n).collect()
    }

    fn add(&mut self, tensor: &Tensor) -> Result<(), ObserveError> {
        let n = self.n_columns;
        let mut product = vec![0f32; n * n];
        let (sums, of_columns, n_vectors) = (&mut self.sums, &mut self.of_columns, &mut self.n_vectors);
        for_rows(&self.read, n, [tensor], |group, [rows]| {
            let of_columns = &mut of_columns[group * n..(group + 1) * n];
            for row in rows.chunks_exact(n.max(1)) {
                of_columns.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
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

/// Items in parts, in their order, each with second moments of no more than so many bytes where more than one item is in it.
pub(in crate::compress) fn parts<'a, T: Clone, I: IntoIterator<Item = &'a Product>>(
    items: &'a [T],
    products: impl Fn(&'a T) -> I,
    most_bytes: usize,
) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<&'a T>> = Vec::new();
    for item in items {
        let known = parts.last().into_iter().flatten().flat_map(|known| products(known));
        let fits = n_bytes(known.chain(products(item))) <= most_bytes;
        match parts.last_mut().filter(|_| fits) {
            Some(part) => part.push(item),
            None => parts.push(vec![item]),
        }
    }
    parts.into_iter().map(|part| part.into_iter().cloned().collect()).collect()
}

/// The second moments of what meets a constant, by group of channels: the sum of those of its products, whose matrices are alike.
pub(in crate::compress) fn of_products(products: &[Product], grams: &[Gram]) -> Vec<Vec<f64>> {
    let of_product = |product: &Product| {
        grams.iter().find(|gram| gram.is_of(product)).expect("every product of the task was looked at")
    };
    let n_groups = products.first().map_or(0, |product| product.matrices.n_groups);
    let of_group = |group: usize| {
        let mut sum = of_product(&products[0]).moments(group);
        for product in &products[1..] {
            sum.iter_mut().zip(of_product(product).moments(group)).for_each(|(sum, moment)| *sum += moment);
        }
        sum
    };
    (0..n_groups).into_par_iter().map(of_group).collect()
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

/// What two networks of the same structure give one product to read, at the same places of the same samples: the moments of each,
/// and those between them.
#[derive(Clone, Debug)]
pub(in crate::compress) struct Pair {
    /// Of the one.
    pub(in crate::compress) one: Gram,
    /// Of the other.
    pub(in crate::compress) other: Gram,
    between: Vec<f64>,
}

impl Pair {
    fn new(product: &Product) -> Pair {
        let one = Gram::new(product);
        Pair { other: one.clone(), between: vec![0.0; one.sums.len()], one }
    }

    /// `E[x yᵀ]` of a group, `x` of the one and `y` of the other.
    pub(in crate::compress) fn between(&self, group: usize) -> Vec<f64> {
        let size = self.one.n_columns * self.one.n_columns;
        let n = self.one.n_vectors.max(1) as f64;
        self.between[group * size..(group + 1) * size].iter().map(|sum| sum / n).collect()
    }

    fn add(&mut self, tensors: [&Tensor; 2]) -> Result<(), ObserveError> {
        let n = self.one.n_columns;
        let mut product = vec![0f32; n * n];
        self.one.add(tensors[0])?;
        self.other.add(tensors[1])?;
        let between = &mut self.between;
        for_rows(&self.one.read, n, tensors, |group, [x, y]| {
            let sums = &mut between[group * n * n..(group + 1) * n * n];
            let together = (N_TOGETHER * n).max(1);
            for (x, y) in x.chunks(together).zip(y.chunks(together)) {
                let (rows, y) = (x.len() / n.max(1), Matrix::rows(y, n));
                gemm([n, n, rows], 1.0, Matrix::rows(x, n).transposed(), y, false, &mut product);
                sums.iter_mut().zip(&product).for_each(|(sum, &product)| *sum += f64::from(product));
            }
        })?;
        Ok(())
    }
}

/// What a product reads in two networks. Both give [`values()`] of the product; `told` gets the number of samples that are done.
///
/// # Errors
/// As [`grams`].
pub(in crate::compress) fn pair<E: From<ObserveError>>(
    networks: [&mut dyn Forward; 2],
    product: &Product,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    told: impl FnMut(u64),
) -> Result<Pair, E> {
    let mut pair = Pair::new(product);
    let mut both = Both(networks);
    for_batches(&mut both, batches, told, |tensors| match &tensors[..] {
        [one, other] => pair.add([one, other]),
        values => {
            let problem = format!("gives {} values for one", values.len());
            Err(ProbeError { what: format!("`{}`", product.read.value), problem }.into())
        }
    })?;
    pair.one.check()?;
    pair.other.check()?;
    Ok(pair)
}

/// Two networks on the same inputs, the values of the one before those of the other.
struct Both<'a>([&'a mut dyn Forward; 2]);

impl Forward for Both<'_> {
    fn forward(&mut self, inputs: &IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, ProbeError> {
        let mut values = self.0[0].forward(inputs)?;
        values.extend(self.0[1].forward(inputs)?);
        Ok(values)
    }
}
