//! `Pad` becomes padding of the convolution or pooling that reads it.

use super::constants::scalar;
use super::{Edits, View};
use crate::graph::op::{AutoPad, Op, PadMode};
use crate::graph::tensor::DType;
use crate::graph::{Name, Node};

/// Folds a `Pad` of the spatial axes into the `Conv`, `AveragePool` or `MaxPool` that alone reads it, where the operator's own
/// padding has the same effect.
pub(super) fn fold(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let node = &view.graph.nodes[node_idx];
    let (Op::Pad(pad), Some(x), Some(padded)) = (&node.op, node.input(0), node.output(0)) else { return };
    let reads_windows =
        |node_idx: usize| matches!(view.graph.nodes[node_idx].op, Op::Conv(_) | Op::AveragePool(_) | Op::MaxPool(_));
    let readers = view.uses.readers(padded).iter().filter(|reader| reader.position == Some(0));
    let Some(reader_idx) = readers.map(|reader| reader.node_idx).find(|&idx| reads_windows(idx)) else { return };
    let widened = if view.uses.sole_reader(padded).is_none() {
        Err(format!("`{padded}` is read elsewhere, too"))
    } else if pad.mode != PadMode::Constant {
        Err("it does not pad with a constant".to_string())
    } else {
        widened(view, node, x, reader_idx)
    };
    match widened {
        Ok(reader) => {
            if let Some(patch) = edits.take(&[node_idx, reader_idx]) {
                patch.remove(node_idx);
                patch.replace(reader_idx, vec![reader]);
            }
        }
        Err(reason) => edits.decline(node_idx, reason),
    }
}

/// The reader of a `Pad` with its padding added to its own.
fn widened(view: &View<'_>, pad: &Node, x: &Name, reader_idx: usize) -> Result<Node, String> {
    let added = spatial_pads(view, pad, x)?;
    let value = match pad.input(2) {
        Some(name) => scalar(view, name).ok_or_else(|| format!("`{name}` is not constant"))?,
        None => 0.0,
    };
    let mut reader = view.graph.nodes[reader_idx].clone();
    match &mut reader.op {
        Op::Conv(conv) => {
            expect_zero(value)?;
            conv.pads = joined(conv.auto_pad, &conv.pads, &added)?;
            conv.auto_pad = AutoPad::NotSet;
        }
        Op::AveragePool(pool) => {
            expect_zero(value)?;
            expect_floor(pool.ceil_mode)?;
            if !pool.count_include_pad && pool.pads.iter().any(|&pad| pad != 0) {
                return Err("the pooling counts these places, but not those of its own padding".to_string());
            }
            pool.pads = joined(pool.auto_pad, &pool.pads, &added)?;
            pool.auto_pad = AutoPad::NotSet;
            pool.count_include_pad = true;
            expect_within(&pool.pads, &pool.kernel_shape)?;
        }
        Op::MaxPool(pool) => {
            expect_floor(pool.ceil_mode)?;
            if reader.outputs.iter().skip(1).any(Option::is_some) {
                return Err("the indices that the pooling gives count the padding".to_string());
            }
            if pool.dilations.iter().any(|&dilation| dilation != 1) {
                return Err("a dilated window may lie over padding alone".to_string());
            }
            if !is_never_above(view, value, x) {
                return Err(format!("the maximum of a window may be the {value} that it pads with"));
            }
            pool.pads = joined(pool.auto_pad, &pool.pads, &added)?;
            pool.auto_pad = AutoPad::NotSet;
            expect_within(&pool.pads, &pool.kernel_shape)?;
        }
        _ => return Err("its reader has no padding of its own".to_string()),
    }
    reader.inputs[0] = Some(x.clone());
    Ok(reader)
}

/// The padding before and after each spatial axis, as the attribute `pads` lists it.
fn spatial_pads(view: &View<'_>, pad: &Node, x: &Name) -> Result<Vec<i64>, String> {
    let rank = view.types.tensor(x).and_then(|tensor| tensor.rank());
    let rank = rank.filter(|&rank| rank > 2).ok_or("the number of dimensions of its input is not known")?;
    let given =
        |position: usize| pad.input(position).map(|name| view.integers(name).ok_or("its pads are not constant"));
    let pads = given(1).ok_or("its pads are left out")??;
    let axes = given(3).transpose()?.unwrap_or((0i64..).take(rank).collect());
    if pads.len() != 2 * axes.len() {
        return Err("its pads do not fit its axes".to_string());
    }
    let mut spatial = vec![0; 2 * (rank - 2)];
    for (position, axis) in axes.iter().enumerate() {
        let (begin, end) = (pads[position], pads[axes.len() + position]);
        if (begin, end) == (0, 0) {
            continue;
        }
        let from_front = usize::try_from(*axis).ok();
        let axis = from_front.or_else(|| rank.checked_sub(usize::try_from(axis.unsigned_abs()).ok()?));
        let axis = axis.and_then(|axis| axis.checked_sub(2)).filter(|&axis| axis < rank - 2);
        let axis = axis.ok_or("it pads other axes than the spatial ones")?;
        if begin < 0 || end < 0 {
            return Err("it crops".to_string());
        }
        spatial[axis] = begin;
        spatial[rank - 2 + axis] = end;
    }
    Ok(spatial)
}

fn joined(auto_pad: AutoPad, own: &[i64], added: &[i64]) -> Result<Vec<i64>, String> {
    let own = match auto_pad {
        AutoPad::NotSet if !own.is_empty() => own,
        AutoPad::NotSet | AutoPad::Valid => &vec![0; added.len()],
        AutoPad::SameUpper | AutoPad::SameLower => {
            return Err("the padding of its reader follows from the padded size".to_string());
        }
    };
    if own.len() != added.len() {
        return Err("the padding of its reader does not fit its axes".to_string());
    }
    let sums: Option<Vec<i64>> = own.iter().zip(added).map(|(own, added)| own.checked_add(*added)).collect();
    sums.ok_or_else(|| "the padding is too wide".to_string())
}

fn expect_zero(value: f64) -> Result<(), String> {
    if value == 0.0 { Ok(()) } else { Err(format!("it pads with {value}, its reader with zero")) }
}

fn expect_floor(ceil_mode: bool) -> Result<(), String> {
    if ceil_mode { Err("a window beyond the padding counts other places".to_string()) } else { Ok(()) }
}

/// onnxruntime refuses poolings whose padding could fill a window.
fn expect_within(pads: &[i64], kernel: &[i64]) -> Result<(), String> {
    let fits = pads.iter().zip(kernel.iter().chain(kernel)).all(|(pad, kernel)| pad < kernel);
    if fits { Ok(()) } else { Err("the padding is as wide as the window".to_string()) }
}

/// Whether no finite element of `x` lies below this value.
fn is_never_above(view: &View<'_>, value: f64, x: &Name) -> bool {
    let lowest = match view.types.tensor(x).map(|tensor| tensor.dtype) {
        Some(DType::F16) => f64::from(half::f16::MIN),
        Some(DType::BF16) => f64::from(half::bf16::MIN),
        Some(DType::F32) => f64::from(f32::MIN),
        _ => f64::MIN,
    };
    value <= lowest || least(view, x).is_some_and(|least| value <= least)
}

/// What no element of a value lies below, as the operator that computes it tells.
fn least(view: &View<'_>, name: &Name) -> Option<f64> {
    let node = view.uses.producer(name)?;
    match &node.op {
        Op::Relu | Op::Abs | Op::Sigmoid | Op::HardSigmoid(_) | Op::Softplus | Op::Softmax(_) | Op::Exp | Op::Sqrt => {
            Some(0.0)
        }
        Op::Clip => {
            let min = scalar(view, node.input(1)?)?;
            // Where they are crossed, every element is the maximum.
            match node.input(2) {
                Some(max) => Some(min.min(scalar(view, max)?)),
                None => Some(min),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Net, check, check_declined};
    use crate::graph::op::{AutoPad, AveragePool, Conv, MaxPool, Op, Pad, PadMode};
    use crate::graph::tensor::Tensor;
    use crate::graph::{Graph, Name};

    /// `reader(Pad(x))`, with a weight where the reader is a convolution.
    fn padded(mode: PadMode, pads: &[i64], value: Option<f32>, relu: bool, reader: Op) -> Graph {
        let mut net = Net::new(1);
        let mut x = net.input(&[1, 2, 5, 6]);
        if relu {
            x = net.node(Op::Relu, &[&x]);
        }
        let y = pad(&mut net, mode, &x, pads, value);
        let w = matches!(reader, Op::Conv(_)).then(|| net.random(&[3, 2, 3, 3]));
        let inputs: Vec<&Name> = [&y].into_iter().chain(&w).collect();
        let y = net.node(reader, &inputs);
        net.finish(&y)
    }

    fn pad(net: &mut Net, mode: PadMode, x: &Name, pads: &[i64], value: Option<f32>) -> Name {
        let pads = net.list(pads);
        let value = value.map(|value| net.scalar(value));
        let inputs: Vec<&Name> = [x, &pads].into_iter().chain(&value).collect();
        net.node(Op::Pad(Pad { mode }), &inputs)
    }

    const PADS: [i64; 8] = [0, 0, 1, 2, 0, 0, 0, 1];

    fn average(attributes: AveragePool) -> Op {
        Op::AveragePool(AveragePool { kernel_shape: vec![3, 3], ..attributes })
    }

    fn plain_average() -> AveragePool {
        AveragePool {
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            count_include_pad: false,
            dilations: vec![],
            kernel_shape: vec![3, 3],
            pads: vec![],
            strides: vec![],
        }
    }

    fn plain_max() -> MaxPool {
        MaxPool {
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            dilations: vec![],
            kernel_shape: vec![3, 3],
            pads: vec![],
            storage_order: 0,
            strides: vec![],
        }
    }

    #[test]
    fn zeros_before_a_convolution() {
        for own in [vec![], vec![1, 0, 2, 0]] {
            let conv = Conv { pads: own, strides: vec![2, 1], ..Conv::default() };
            check(&padded(PadMode::Constant, &PADS, Some(0.0), false, Op::Conv(conv)), &["Conv"]);
        }
        let valid = Conv { auto_pad: AutoPad::Valid, ..Conv::default() };
        let simplified = check(&padded(PadMode::Constant, &PADS, None, false, Op::Conv(valid)), &["Conv"]);
        insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
        graph "net"
          in   %x: f32[1, 2, 5, 6]
          out  %conv
          init %w: f32[3, 2, 3, 3] #0dcd4f8d
          %conv = Conv(%x, %w) {pads=[1, 2, 0, 1]}
        "#);
    }

    #[test]
    fn axes_may_be_listed() {
        let mut net = Net::new(2);
        let x = net.input(&[1, 2, 5, 6]);
        let (pads, zero, axes) = (net.list(&[1, 2, 3, 4]), net.scalar(0.0), net.list(&[-1, 2]));
        let y = net.node(Op::Pad(Pad { mode: PadMode::Constant }), &[&x, &pads, &zero, &axes]);
        let w = net.random(&[3, 2, 3, 3]);
        let y = net.node(Op::Conv(Conv::default()), &[&y, &w]);
        let simplified = check(&net.finish(&y), &["Conv"]);
        let Op::Conv(conv) = &simplified.graph.nodes[0].op else { panic!("a convolution") };
        assert_eq!(conv.pads, [2, 1, 4, 3]);
    }

    #[test]
    fn zeros_before_an_average_are_counted() {
        let simplified =
            check(&padded(PadMode::Constant, &PADS, None, false, average(plain_average())), &["AveragePool"]);
        let Op::AveragePool(pool) = &simplified.graph.nodes[0].op else { panic!("a pooling") };
        assert!(pool.count_include_pad);
        let counted = AveragePool { count_include_pad: true, pads: vec![1, 0, 0, 1], ..plain_average() };
        check(&padded(PadMode::Constant, &PADS, None, false, average(counted)), &["AveragePool"]);
    }

    #[test]
    fn what_is_never_the_maximum() {
        for value in [f32::NEG_INFINITY, f32::MIN] {
            check(&padded(PadMode::Constant, &PADS, Some(value), false, Op::MaxPool(plain_max())), &["MaxPool"]);
        }
        for value in [None, Some(-1.0)] {
            check(&padded(PadMode::Constant, &PADS, value, true, Op::MaxPool(plain_max())), &["Relu", "MaxPool"]);
        }
    }

    #[test]
    fn other_effects_are_left() {
        let conv = || Op::Conv(Conv::default());
        let declined = |graph: Graph, reason: &str| check_declined(&graph, &[reason]);
        let constant =
            |pads: &[i64], value: f32, reader: Op| padded(PadMode::Constant, pads, Some(value), false, reader);
        declined(padded(PadMode::Reflect, &PADS, None, false, conv()), "it does not pad with a constant");
        declined(constant(&PADS, 1.0, conv()), "it pads with 1, its reader with zero");
        declined(constant(&[0, 0, -1, 0, 0, 0, 0, 0], 0.0, conv()), "it crops");
        declined(constant(&[1, 0, 0, 0, 0, 0, 0, 0], 0.0, conv()), "it pads other axes than the spatial ones");
        let same = Op::Conv(Conv { auto_pad: AutoPad::SameUpper, ..Conv::default() });
        declined(constant(&PADS, 0.0, same), "the padding of its reader follows from the padded size");

        let own = average(AveragePool { pads: vec![1; 4], ..plain_average() });
        declined(constant(&PADS, 0.0, own), "the pooling counts these places, but not those of its own padding");
        let ceil = average(AveragePool { ceil_mode: true, ..plain_average() });
        declined(constant(&PADS, 0.0, ceil), "a window beyond the padding counts other places");
        let wide = [0, 0, 3, 0, 0, 0, 0, 0];
        declined(constant(&wide, 0.0, average(plain_average())), "the padding is as wide as the window");

        let reason = "the maximum of a window may be the 0 that it pads with";
        declined(constant(&PADS, 0.0, Op::MaxPool(plain_max())), reason);
        let dilated = Op::MaxPool(MaxPool { dilations: vec![2, 2], ..plain_max() });
        declined(constant(&PADS, f32::MIN, dilated), "a dilated window may lie over padding alone");
    }

    #[test]
    fn values_and_readers_that_do_not_fit_are_left() {
        let mut net = Net::new(3);
        let x = net.input(&[1, 2, 5, 6]);
        let y = pad(&mut net, PadMode::Constant, &x, &PADS, None);
        let w = net.random(&[3, 2, 3, 3]);
        let conv = net.node(Op::Conv(Conv::default()), &[&y, &w]);
        net.builder.output(&y);
        check_declined(&net.finish(&conv), &["`pad` is read elsewhere, too"]);

        let mut net = Net::new(4);
        let x = net.input(&[1, 2, 5, 6]);
        let given = net.input(&[]);
        let pads = net.builder.initializer("pads", Tensor::vector(PADS.to_vec()));
        let y = net.node(Op::Pad(Pad { mode: PadMode::Constant }), &[&x, &pads, &given]);
        let w = net.random(&[3, 2, 3, 3]);
        let y = net.node(Op::Conv(Conv::default()), &[&y, &w]);
        check_declined(&net.finish(&y), &["`x_2` is not constant"]);

        let mut net = Net::new(5);
        let x = net.input(&[1, 2, 5, 6]);
        let y = pad(&mut net, PadMode::Constant, &x, &PADS, Some(f32::MIN));
        let outputs = net.builder.node_with_outputs(Op::MaxPool(plain_max()), &[&y], 2);
        let floats = net.node(Op::Relu, &[&outputs[0]]);
        net.builder.output(&outputs[1]);
        let simplified = super::super::simplify(&net.finish(&floats), &Default::default()).expect("it fits");
        assert_eq!(simplified.declined[0].reason, "the indices that the pooling gives count the padding");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_padding_of_zeros(
            pads in prop::array::uniform4(0i64..3), own in prop::array::uniform4(0i64..2), stride in 1i64..3, kind in 0..3,
        ) {
            let listed = [0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]];
            let fits = pads.iter().zip(own).all(|(pad, own)| pad + own < 3);
            let (reader, joins) = match kind {
                0 => (Op::Conv(Conv { pads: own.to_vec(), strides: vec![stride; 2], ..Conv::default() }), true),
                1 => {
                    let pool = AveragePool { count_include_pad: true, pads: own.to_vec(), ..plain_average() };
                    (average(AveragePool { strides: vec![stride; 2], ..pool }), fits)
                }
                _ => (Op::MaxPool(MaxPool { pads: own.to_vec(), strides: vec![stride; 2], ..plain_max() }), fits),
            };
            let name = reader.name().to_string();
            prop_assume!(listed.iter().any(|&pad| pad != 0));
            let operators = if joins { vec!["Relu", &name] } else { vec!["Relu", "Pad", &name] };
            check(&padded(PadMode::Constant, &listed, None, true, reader), &operators);
        }
    }
}
