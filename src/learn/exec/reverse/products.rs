//! Gradients of a matrix that takes part in many products, as the weight of a recurrent layer does in one a step.

use crate::learn::exec::emit::Emitter;
use crate::learn::exec::program::Id;

/// `leftᵀ right`, both of as many rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) left: Id,
    pub(super) right: Id,
}

/// Gradients whose sum is the sum of all products: `Σ Lᵢᵀ Rᵢ` is one product of the `Lᵢ` and of the `Rᵢ` below each other.
pub(super) fn summed(emitter: &mut Emitter, products: &[Product]) -> Vec<Id> {
    let Some(&Product { left, right }) = products.first() else { return Vec::new() };
    let n_columns = [left, right].map(|id| emitter.shape(id)[1]);
    let n_rows: usize = products.iter().map(|product| emitter.shape(product.left)[0]).sum();
    // rows are copied once, where every product more would be added to the whole matrix
    let is_cheaper = n_rows * (n_columns[0] + n_columns[1]) < (products.len() - 1) * n_columns[0] * n_columns[1];
    if !is_cheaper {
        return products.iter().map(|product| emitter.matmul(product.left, product.right, true, false)).collect();
    }
    let below = |emitter: &mut Emitter, side: fn(&Product) -> Id| {
        let parts: Vec<Id> = products.iter().map(side).collect();
        emitter.concat(0, &parts)
    };
    let (left, right) = (below(emitter, |product| product.left), below(emitter, |product| product.right));
    vec![emitter.matmul(left, right, true, false)]
}
