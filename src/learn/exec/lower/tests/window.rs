//! Poolings and `Resize`.

use super::{integers, some};
use crate::graph::op::{self, AutoPad, CoordinateTransformation, NearestMode, Op, ResizeMode};
use crate::graph::tensor::Tensor;
use crate::learn::exec::testing::{check, numbers};

/// Shape; kernel, strides, dilations, pads; whether the number of places is rounded up.
type Case = (&'static [usize], [&'static [i64]; 4], bool);

#[test]
fn poolings() {
    let cases: [Case; 5] = [
        (&[2, 2, 5, 6], [&[2, 3], &[], &[], &[]], false),
        (&[2, 2, 5, 6], [&[2, 3], &[2, 2], &[], &[1, 0, 1, 2]], false),
        (&[1, 2, 6, 6], [&[3, 2], &[2, 2], &[], &[0, 0, 0, 0]], true),
        (&[1, 2, 7], [&[3], &[1], &[2], &[2, 1]], false),
        (&[1, 1, 3, 4, 3], [&[2, 2, 2], &[1, 2, 1], &[], &[]], false),
    ];
    for (shape, [kernel, strides, dilations, pads], ceil_mode) in cases {
        let lists = || (kernel.to_vec(), strides.to_vec(), dilations.to_vec(), pads.to_vec());
        let (kernel_shape, strides, dilations, pads) = lists();
        let auto_pad = AutoPad::NotSet;
        let max = op::MaxPool { auto_pad, ceil_mode, dilations, kernel_shape, pads, storage_order: 0, strides };
        check(Op::MaxPool(max), &some(&[shape]), &[0], &[]);
        for count_include_pad in [false, true] {
            let (kernel_shape, strides, dilations, pads) = lists();
            let average =
                op::AveragePool { auto_pad, ceil_mode, count_include_pad, dilations, kernel_shape, pads, strides };
            check(Op::AveragePool(average), &some(&[shape]), &[0], &[]);
        }
    }
    let same = op::AveragePool {
        auto_pad: AutoPad::SameUpper,
        ceil_mode: false,
        count_include_pad: false,
        dilations: vec![],
        kernel_shape: vec![3, 3],
        pads: vec![],
        strides: vec![2, 2],
    };
    check(Op::AveragePool(same), &some(&[&[1, 2, 5, 4]]), &[0], &[]);
}

fn resize(mode: ResizeMode, coordinate_transformation_mode: CoordinateTransformation) -> op::Resize {
    op::Resize { mode, coordinate_transformation_mode, ..op::Resize::default() }
}

#[test]
fn resizing() {
    let scales = |scales: &[f32]| Some(Tensor::vector(scales.to_vec()));
    let all = [
        CoordinateTransformation::HalfPixel,
        CoordinateTransformation::HalfPixelSymmetric,
        CoordinateTransformation::PytorchHalfPixel,
        CoordinateTransformation::AlignCorners,
        CoordinateTransformation::Asymmetric,
    ];
    for mode in [ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic] {
        for coordinates in all {
            for factors in [[1.0, 1.0, 2.0, 1.5], [1.0, 1.0, 0.6, 1.0]] {
                let inputs = [Some(numbers(&[1, 2, 4, 5])), None, scales(&factors)];
                check(Op::Resize(resize(mode, coordinates)), &inputs, &[0], &[2]);
            }
        }
        let special = |antialias, exclude_outside| {
            let half = CoordinateTransformation::HalfPixel;
            Op::Resize(op::Resize { antialias, exclude_outside, axes: vec![2, 3], ..resize(mode, half) })
        };
        for (antialias, exclude_outside) in [(true, false), (false, true), (true, true)] {
            let inputs = [Some(numbers(&[1, 2, 6, 5])), None, None, integers(&[3, 4])];
            check(special(antialias, exclude_outside), &inputs, &[0], &[3]);
        }
        let crop = resize(mode, CoordinateTransformation::TfCropAndResize);
        let crop = op::Resize { extrapolation_value: 0.5, axes: vec![2, 3], ..crop };
        let inputs = [Some(numbers(&[1, 2, 4, 4])), scales(&[0.4, 0.6, 1.2, 1.7]), None, integers(&[3, 3])];
        check(Op::Resize(crop), &inputs, &[0], &[1, 3]);
    }
    for nearest_mode in
        [NearestMode::RoundPreferFloor, NearestMode::RoundPreferCeil, NearestMode::Floor, NearestMode::Ceil]
    {
        let asymmetric = resize(ResizeMode::Nearest, CoordinateTransformation::Asymmetric);
        let inputs = [Some(numbers(&[3, 4])), None, scales(&[1.5, 2.0])];
        check(Op::Resize(op::Resize { nearest_mode, ..asymmetric }), &inputs, &[0], &[2]);
    }
}
