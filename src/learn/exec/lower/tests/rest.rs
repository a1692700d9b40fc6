//! `Attention`, `Einsum`, and what the reference interpreter computes.

use super::{integers, some};
use crate::graph::op::{self, Op};
use crate::graph::tensor::Tensor;
use crate::learn::exec::testing::{check, check_outputs, numbers};

#[test]
fn sums_of_products() {
    let cases: [(&str, &[&[usize]]); 14] = [
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("bij,bjk->bik", &[&[2, 2, 3], &[2, 3, 4]]),
        ("bhid,bhjd->bhij", &[&[2, 2, 3, 2], &[2, 2, 4, 2]]),
        ("bhij,bjhd->bihd", &[&[2, 2, 3, 4], &[2, 4, 2, 3]]),
        ("ij->ji", &[&[2, 3]]),
        ("ij->", &[&[2, 3]]),
        ("ii->i", &[&[3, 3]]),
        ("iji->j", &[&[3, 2, 3]]),
        ("i,i,i->i", &[&[3], &[3], &[3]]),
        ("i,j->ij", &[&[3], &[2]]),
        ("...ij,...jk->...ik", &[&[2, 2, 3], &[3, 2]]),
        ("ij,jk,kl->il", &[&[2, 3], &[3, 2], &[2, 4]]),
        ("ijk,j->i", &[&[2, 3, 2], &[3]]),
        ("ij,j", &[&[2, 3], &[1]]),
    ];
    for (equation, shapes) in cases {
        let learns: Vec<usize> = (0..shapes.len()).collect();
        check(Op::Einsum(op::Einsum { equation: equation.to_string() }), &some(shapes), &learns, &[]);
    }
}

#[test]
fn attention() {
    let plain = op::Attention::default();
    let four: [&[usize]; 3] = [&[2, 4, 3, 2], &[2, 2, 5, 2], &[2, 2, 5, 3]];
    let op = |attention: &op::Attention| Op::Attention(attention.clone());
    let is_causal = op::Attention { is_causal: true, ..plain };
    let capped = op::Attention { softcap: 0.7, scale: Some(0.3), ..plain };
    let windowed = op::Attention { left_window_size: 0, right_window_size: 1, ..plain };
    for attention in [&plain, &is_causal, &capped, &windowed] {
        check(op(attention), &some(&four), &[0, 1, 2], &[]);
        let mut masked = some(&four);
        masked.push(Some(numbers(&[3, 5])));
        check(op(attention), &masked, &[0, 1, 2, 3], &[]);
        let truths =
            vec![true, false, true, true, false, false, false, false, false, false, true, true, true, true, true];
        masked[3] = Some(Tensor::new(&[3, 5], truths).expect("fifteen"));
        check(op(attention), &masked, &[0, 1, 2], &[]);
        check(op(attention), &masked, &[0, 1, 2], &[3]);
    }
    let three = op::Attention { q_num_heads: Some(2), kv_num_heads: Some(1), ..plain };
    check(op(&three), &some(&[&[2, 3, 4], &[2, 5, 2], &[2, 5, 3]]), &[0, 1, 2], &[]);
    let alone = op::Attention { kv_num_heads: Some(2), ..three };
    check_outputs(op(&alone), &some(&[&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]]), &[0, 1, 2], &[], 1);
    let mut past = some(&four);
    past.extend([None, Some(numbers(&[2, 2, 1, 2])), Some(numbers(&[2, 2, 1, 3]))]);
    check(op(&is_causal), &past, &[0, 1, 2, 4, 5], &[]);
    for qk_matmul_output_mode in 1..4 {
        check(op(&op::Attention { qk_matmul_output_mode, ..capped }), &some(&four), &[], &[]);
    }
}

#[test]
fn the_reference_computes_the_rest() {
    check(Op::Mod(op::Mod { fmod: true }), &some(&[&[2, 3], &[3]]), &[], &[]);
    check(Op::Hardmax(op::Softmax { axis: -1 }), &some(&[&[2, 3]]), &[], &[]);
    let fill = op::ConstantOfShape { value: Some(Tensor::vector(vec![0.5f64])) };
    check(Op::ConstantOfShape(fill), &[integers(&[2, 3])], &[], &[0]);
    let range = [0.5f64, 3.0, 0.5].map(|number| Some(Tensor::scalar(number)));
    check(Op::Range(op::Range { stash_type: 1 }), &range, &[], &[0, 1, 2]);
}
