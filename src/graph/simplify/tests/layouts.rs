//! Transposes, alone and around parts of a network.

use super::{check, check_declined, check_kept};

#[test]
fn transposes_in_a_row_are_one_or_none() {
    check(
        "in x: f32[2, 3, 4]
         a = Transpose(x) {perm=[0, 2, 1]}
         b = Transpose(a) {perm=[0, 2, 1]}
         c = Relu(b)
         d = Transpose(c) {perm=[1, 0, 2]}
         e = Transpose(d) {perm=[2, 0, 1]}
         out e",
        "%c = Relu(%x)
         %e = Transpose(%c) {perm=[2, 1, 0]}",
    );
}

#[test]
fn a_sandwich_of_transposes_vanishes() {
    check(
        "in x: f32[n, 3, 8, 8]
         init w: f32[3, 3, 1, 1]
         init bias: f32[3] 1 2 3
         init pads: i64[8] 0 1 1 0 0 1 1 0
         a = Conv(x, w)
         b = Transpose(a) {perm=[0, 2, 3, 1]}
         c = Add(b, bias)
         d = Relu(c)
         p = Pad(d, pads)
         e = Transpose(p) {perm=[0, 3, 1, 2]}
         f = Conv(e, w)
         out f",
        "init %w: f32[3, 3, 1, 1] #3ec2f7b7
         init %w_bias: f32[3] [1.0, 2.0, 3.0]
         %c_2 = Conv(%x, %w, %w_bias)
         %d_2 = Relu(%c_2)
         %f = Conv(%d_2, %w) {pads=[1, 1, 1, 1]}",
    );
}

#[test]
fn a_residual_sum_in_the_other_order_needs_no_transposes() {
    check(
        "in x: f32[1, 4, 6]
         in z: f32[1, 4, 6]
         a = Transpose(x) {perm=[0, 2, 1]}
         b = Transpose(z) {perm=[0, 2, 1]}
         c = Add(a, b)
         d = Softmax(c) {axis=-1}
         e = ReduceMean(d, axis)
         init axis: i64[1] 1
         f = Transpose(e) {perm=[0, 2, 1]}
         out f",
        "init %axis_2: i64[1] [2]
         %c_2 = Add(%x, %z)
         %d_2 = Softmax(%c_2) {axis=1}
         %f = ReduceMean(%d_2, %axis_2)",
    );
}

#[test]
fn joins_and_splits_are_taken_along() {
    check(
        "in x: f32[2, 4, 6]
         in z: f32[2, 4, 6]
         a = Transpose(x) {perm=[0, 2, 1]}
         b = Transpose(z) {perm=[0, 2, 1]}
         c = Concat(a, b) {axis=1}
         d, e = Split(c, _) {axis=1;num_outputs=2}
         f = Sub(d, e)
         g = Transpose(f) {perm=[0, 2, 1]}
         out g",
        "%c_2 = Concat(%x, %z) {axis=2}
         %d_2, %e_2 = Split(%c_2, _) {axis=2, num_outputs=2}
         %g = Sub(%d_2, %e_2)",
    );
}

#[test]
fn a_transpose_that_something_needs_stays() {
    check_kept(
        "in x: f32[2, 4, 6]
         init w: f32[4, 5]
         a = Transpose(x) {perm=[0, 2, 1]}
         b = Relu(a)
         c = MatMul(b, w)
         out c",
    );
}

#[test]
fn moving_only_dimensions_of_one_is_a_reshape() {
    check(
        "in x: f32[n, 1, 4, 1]
         y = Transpose(x) {perm=[0, 3, 1, 2]}
         out y",
        "init %y_shape: i64[4] [0, 1, 1, 4]
         %y = Reshape(%x, %y_shape)",
    );
}

#[test]
fn a_product_takes_transposed_matrices() {
    check(
        "in x: f32[4, n]
         in z: f32[5, 4]
         a = Transpose(x)
         b = Transpose(z)
         y = MatMul(a, b)
         out y",
        "%y = Gemm(%x, %z) {transA=1, transB=1}",
    );
}

#[test]
fn a_product_of_more_dimensions_keeps_its_transpose() {
    check_kept(
        "in x: f32[2, 4, 3]
         in z: f32[2, 4, 5]
         a = Transpose(x) {perm=[0, 2, 1]}
         y = MatMul(a, z)
         out y",
    );
}

#[test]
fn a_reduction_reads_what_its_transpose_does() {
    check(
        "in x: f32[n, 3, 4, 5]
         init axes_hw: i64[2] 1 2
         a = Transpose(x) {perm=[0, 2, 3, 1]}
         y = ReduceMean(a, axes_hw) {keepdims=0}
         out y",
        "init %axes_hw_2: i64[2] [2, 3]
         %y = ReduceMean(%x, %axes_hw_2) {keepdims=0}",
    );
}

#[test]
fn a_reduction_that_leaves_axes_out_of_order_is_declined() {
    check_declined(
        "in x: f32[2, 3, 4, 5]
         init axes_w: i64[1] 2
         a = Transpose(x) {perm=[0, 2, 3, 1]}
         y = ReduceMean(a, axes_w) {keepdims=0}
         out y",
        &["another order"],
    );
}

#[test]
fn the_rows_of_a_matrix_are_transposed_instead() {
    check(
        "in x: f32[n, 2, 3]
         init w: f32[6, 2] 0 1 2 3 4 5 6 7 8 9 10 11
         init flat: i64[2] -1 6
         a = Transpose(x) {perm=[0, 2, 1]}
         b = Reshape(a, flat)
         y = MatMul(b, w)
         out y",
        "init %w: f32[6, 2] #09b25f5f
         init %b_shape: i64[2] [0, 6]
         %b_flat = Reshape(%x, %b_shape)
         %y = MatMul(%b_flat, %w)",
    );
}

#[test]
fn a_matrix_that_others_read_is_not_transposed() {
    check_kept(
        "in x: f32[2, 2, 3]
         init w: f32[6, 2]
         init flat: i64[2] -1 6
         a = Transpose(x) {perm=[0, 2, 1]}
         b = Reshape(a, flat)
         y = MatMul(b, w)
         z = Exp(x)
         c = Reshape(z, flat)
         d = MatMul(c, w)
         out y
         out d",
    );
}

/// The second Transpose reads one value of the part behind the first and gives another to it.
#[test]
fn a_sum_of_a_value_and_its_own_transpose_keeps_one() {
    check(
        "in x: f32[3, 3]
         t = Transpose(x) {perm=[1, 0]}
         p = Relu(t)
         q = Transpose(p) {perm=[1, 0]}
         r = Add(p, q)
         out r",
        "%p_2 = Relu(%x)
         %p = Transpose(%p_2) {perm=[1, 0]}
         %r = Add(%p, %p_2)",
    );
}
