//! `BatchNormalization` with fixed statistics becomes part of the operator before it, or of the one after it.

use super::constants::floats;
use super::linear::{Affine, Linear, fold_into_producer};
use super::{Edits, View};
use crate::graph::op::{BatchNormalization, Op};
use crate::graph::{Name, Node};

/// Folds the normalization into the `Conv`, `ConvTranspose`, `Gemm` or `MatMul` that computes its input. Where that cannot
/// be, into the one that alone reads its output, as far as that pads nothing with zeros that the shift would change. A
/// weight that another node reads, too, stays as it is: a copy would make the network larger.
pub(super) fn fold(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let node = &view.graph.nodes[node_idx];
    let Op::BatchNormalization(attributes) = &node.op else { return };
    if view.options.keep_batch_norms {
        return;
    }
    let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { return };
    let before = view.uses.producer_idx(x).and_then(|idx| channels_second(view, idx));
    let after = view.uses.sole_reader(y).filter(|reader| reader.position == Some(0));
    let transposed = |idx: usize| matches!(&view.graph.nodes[idx].op, Op::Gemm(gemm) if gemm.trans_a);
    let after = after.map(|reader| reader.node_idx).filter(|&idx| !transposed(idx));
    let after = after.and_then(|idx| channels_second(view, idx));
    if before.is_none() && after.is_none() {
        return;
    }
    let folded = affine(view, node, attributes).and_then(|affine| {
        let into_before = before.map(|linear| fold_into_producer(view, node_idx, &linear, &affine, edits));
        if let Some(Ok(())) = into_before {
            return Ok(());
        }
        let into_after = after.map(|linear| fold_into_reader(view, node_idx, x, &linear, &affine, edits));
        if let Some(Ok(())) = into_after { Ok(()) } else { into_before.or(into_after).unwrap_or(Ok(())) }
    });
    if let Err(reason) = folded {
        edits.decline(node_idx, reason);
    }
}

/// The linear operator at this position, where the channels of its output, and its input, are along axis 1.
fn channels_second<'a>(view: &View<'a>, node_idx: usize) -> Option<Linear<'a>> {
    let linear = Linear::at(view, node_idx)?;
    let rank = linear.rank(view)?;
    (linear.channel_axis(rank) == Some(1)).then_some(linear)
}

fn fold_into_reader(
    view: &View<'_>,
    node_idx: usize,
    x: &Name,
    linear: &Linear<'_>,
    affine: &Affine,
    edits: &mut Edits,
) -> Result<(), String> {
    let change = linear.before(view, affine)?;
    let Some(output) = view.graph.nodes[linear.node_idx()].output(0) else { return Ok(()) };
    if let Some(patch) = edits.take(&[node_idx, linear.node_idx()]) {
        patch.remove(node_idx);
        linear.write(view, change, x, output, patch);
    }
    Ok(())
}

/// What a normalization with fixed statistics does to each channel.
fn affine(view: &View<'_>, node: &Node, attributes: &BatchNormalization) -> Result<Affine, String> {
    if attributes.training_mode || node.outputs.iter().skip(1).any(Option::is_some) {
        return Err("it is in training mode: its statistics are those of the batch".to_string());
    }
    let parameter = |position: usize| {
        let name = node.input(position).ok_or("a parameter is left out")?;
        view.constant(name).and_then(floats).ok_or_else(|| format!("`{name}` is not constant"))
    };
    let [scale, bias, mean, variance] = [parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?];
    let epsilon = f64::from(attributes.epsilon);
    if !variance.iter().all(|variance| variance + epsilon > 0.0) {
        return Err("a variance with epsilon is not above zero".to_string());
    }
    let scale: Vec<f64> =
        scale.iter().zip(variance).map(|(scale, variance)| scale / (variance + epsilon).sqrt()).collect();
    let shift = bias.iter().zip(&mean).zip(&scale).map(|((bias, mean), scale)| bias - mean * scale).collect();
    Ok(Affine { scale: Some(scale), shift: Some(shift) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Net, check, check_declined};
    use crate::graph::op::{BatchNormalization, Conv, ConvTranspose, Gemm, Op};
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{GraphBuilder, Name, TensorType};

    fn normalized(net: &mut Net, x: &Name, n_channels: usize) -> Name {
        let [scale, bias, mean] = [(); 3].map(|()| net.random(&[n_channels]));
        let variance = net.positive(&[n_channels]);
        net.node(Op::BatchNormalization(BatchNormalization::default()), &[x, &scale, &bias, &mean, &variance])
    }

    fn conv(group: i64, pad: i64) -> Op {
        Op::Conv(Conv { group, pads: vec![pad; 4], ..Conv::default() })
    }

    #[test]
    fn into_the_operator_before() {
        let mut net = Net::new(1);
        let x = net.input(&[2, 4, 5, 5]);
        let (w, b) = (net.random(&[6, 2, 3, 3]), net.random(&[6]));
        let y = net.node(conv(2, 1), &[&x, &w, &b]);
        let y = normalized(&mut net, &y, 6);
        let simplified = check(&net.finish(&y), &["Conv"]);
        insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
        graph "net"
          in   %x: f32[2, 4, 5, 5]
          out  %batchnormalization
          init %w: f32[6, 2, 3, 3] #6cc78ad4
          init %w_2: f32[6] [-0.77182615, 0.66532266, -0.35745743, 0.32447112, 1.6046191, -0.23609923]
          %batchnormalization = Conv(%x, %w, %w_2) {group=2, pads=[1, 1, 1, 1]}
        "#);
        let applied = &simplified.applied[0];
        assert_eq!(
            (applied.rewrite, applied.node.as_str()),
            ("fold batch norm", "BatchNormalization `batchnormalization`")
        );

        let mut net = Net::new(2);
        let x = net.input(&[2, 4, 5]);
        let w = net.random(&[4, 3, 3]);
        let transposed = ConvTranspose { group: 2, strides: vec![2], ..ConvTranspose::default() };
        let y = net.node(Op::ConvTranspose(transposed), &[&x, &w]);
        let y = normalized(&mut net, &y, 6);
        check(&net.finish(&y), &["ConvTranspose"]);
    }

    #[test]
    fn into_products_of_matrices() {
        for trans_b in [false, true] {
            let mut net = Net::new(3);
            let x = net.input(&[2, 4]);
            let w = net.random(if trans_b { &[3, 4] } else { &[4, 3] });
            let c = net.random(&[1, 3]);
            let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_b, ..Gemm::default() };
            let y = net.node(Op::Gemm(gemm), &[&x, &w, &c]);
            let y = normalized(&mut net, &y, 3);
            check(&net.finish(&y), &["Gemm"]);
        }
        let mut net = Net::new(4);
        let x = net.input(&[2, 4]);
        let w = net.random(&[4, 3]);
        let y = net.node(Op::MatMul, &[&x, &w]);
        let y = normalized(&mut net, &y, 3);
        check(&net.finish(&y), &["Gemm"]);
    }

    #[test]
    fn into_the_operator_after() {
        let mut net = Net::new(5);
        let x = net.input(&[1, 4, 5, 5]);
        let y = normalized(&mut net, &x, 4);
        let w = net.random(&[6, 2, 3, 3]);
        let y = net.node(conv(2, 0), &[&y, &w]);
        check(&net.finish(&y), &["Conv"]);

        let mut net = Net::new(6);
        let x = net.input(&[2, 4]);
        let y = normalized(&mut net, &x, 4);
        let (w, b) = (net.random(&[3, 4]), net.random(&[3]));
        let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_b: true, ..Gemm::default() };
        let y = net.node(Op::Gemm(gemm), &[&y, &w, &b]);
        check(&net.finish(&y), &["Gemm"]);

        let mut net = Net::new(7);
        let x = net.input(&[2, 4]);
        let y = normalized(&mut net, &x, 4);
        let w = net.random(&[4, 3]);
        let y = net.node(Op::MatMul, &[&y, &w]);
        check(&net.finish(&y), &["Gemm"]);
    }

    #[test]
    fn a_padded_operator_after_it_is_left() {
        let mut net = Net::new(8);
        let x = net.input(&[1, 4, 5, 5]);
        let y = normalized(&mut net, &x, 4);
        let w = net.random(&[6, 4, 3, 3]);
        let y = net.node(conv(1, 1), &[&y, &w]);
        check_declined(&net.finish(&y), &["Conv `conv` pads its input with zeros, which the shift would change"]);
    }

    #[test]
    fn a_value_or_weight_that_others_read_is_left() {
        let mut net = Net::new(9);
        let x = net.input(&[1, 4, 5, 5]);
        let w = net.random(&[4, 4, 3, 3]);
        let inner = net.node(conv(1, 1), &[&x, &w]);
        let y = normalized(&mut net, &inner, 4);
        let y = net.node(Op::Sub, &[&y, &inner]);
        check_declined(&net.finish(&y), &["`conv` is read elsewhere, too"]);

        let mut net = Net::new(10);
        let x = net.input(&[1, 4, 5, 5]);
        let w = net.random(&[4, 4, 3, 3]);
        let y = net.node(conv(1, 1), &[&x, &w]);
        let y = normalized(&mut net, &y, 4);
        let y = net.node(conv(1, 1), &[&y, &w]);
        check_declined(&net.finish(&y), &["the weight `w` is read elsewhere, too"]);

        let mut net = Net::new(11);
        let x = net.input(&[1, 4, 5, 5]);
        let w = net.random(&[4, 4, 3, 3]);
        let y = net.node(conv(1, 1), &[&x, &w]);
        net.builder.output(&y);
        let y = normalized(&mut net, &y, 4);
        check_declined(&net.finish(&y), &["`conv` is read elsewhere, too"]);
    }

    #[test]
    fn a_transposed_input_has_its_channels_elsewhere() {
        let mut net = Net::new(12);
        let x = net.input(&[3, 4]);
        let y = normalized(&mut net, &x, 4);
        let w = net.random(&[3, 2]);
        let y = net.node(Op::Gemm(Gemm { trans_a: true, ..Gemm::default() }), &[&y, &w]);
        check_declined(&net.finish(&y), &[]);
    }

    #[test]
    fn statistics_must_be_fixed_and_sound() {
        let network = |attributes: BatchNormalization, given: bool, variance: f32| {
            let mut net = Net::new(13);
            let x = net.input(&[1, 4, 5, 5]);
            let w = net.random(&[4, 4, 3, 3]);
            let y = net.node(conv(1, 1), &[&x, &w]);
            let [scale, bias, mean] = [(); 3].map(|()| net.random(&[4]));
            let scale = if given { net.builder.input("s", TensorType::new(DType::F32, [4usize])) } else { scale };
            let variance = net.builder.initializer("v", Tensor::vector(vec![variance; 4]));
            let y = net.node(Op::BatchNormalization(attributes), &[&y, &scale, &bias, &mean, &variance]);
            net.finish(&y)
        };
        let plain = BatchNormalization::default;
        check_declined(&network(plain(), true, 1.0), &["`s` is not constant"]);
        let training = BatchNormalization { training_mode: true, ..plain() };
        check_declined(
            &network(training, false, 1.0),
            &["it is in training mode: its statistics are those of the batch"],
        );
        let zero = BatchNormalization { epsilon: 0.0, ..plain() };
        let reason = "a variance with epsilon is not above zero";
        let simplified = super::super::simplify(&network(zero, false, 0.0), &Default::default()).expect("it fits");
        assert_eq!(simplified.declined[0].reason, reason);
        check(&network(plain(), false, 1.0), &["Conv"]);
    }

    #[test]
    fn a_narrow_weight_that_overflows_is_left() {
        let mut builder = GraphBuilder::new("narrow");
        let half = half::f16::from_f32;
        let x = builder.input("x", TensorType::new(DType::F16, [1usize, 1, 4]));
        let w = builder.initializer("w", Tensor::new(&[1, 1, 1], vec![half(60000.0)]).expect("one element"));
        let y = builder.node(Op::Conv(Conv::default()), &[&x, &w]);
        let one = builder.initializer("one", Tensor::vector(vec![half(1.0)]));
        let small = builder.initializer("small", Tensor::vector(vec![half(0.001)]));
        let y = builder.node(Op::BatchNormalization(BatchNormalization::default()), &[&y, &one, &one, &one, &small]);
        builder.output(&y);
        let graph = builder.finish().expect("a network");
        let simplified = super::super::simplify(&graph, &Default::default()).expect("it fits");
        assert_eq!(simplified.declined[0].reason, "the folded weight `w` does not fit the range of f16");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_convolution_takes_it(
            seed in 0u64..1000, n_groups in 1usize..4, n_in in 1usize..3, n_out in 1usize..3, kernel in 1usize..4,
            pad in 0i64..2, transposed: bool, biased: bool, first: bool,
        ) {
            let mut net = Net::new(seed);
            let x = net.input(&[2, n_groups * n_in, 5]);
            let (n_first, n_second) = if transposed { (n_groups * n_in, n_out) } else { (n_groups * n_out, n_in) };
            let w = net.random(&[n_first, n_second, kernel]);
            let group = i64::try_from(n_groups).expect("few");
            let pad = if first { 0 } else { pad };
            let op = if transposed {
                Op::ConvTranspose(ConvTranspose { group, ..ConvTranspose::default() })
            } else {
                Op::Conv(Conv { group, pads: vec![pad; 2], ..Conv::default() })
            };
            let name = op.name().to_string();
            let y = if first { normalized(&mut net, &x, n_groups * n_in) } else { x };
            let mut inputs = vec![y, w];
            inputs.extend(biased.then(|| net.random(&[n_groups * n_out])));
            let y = net.node(op, &inputs.iter().collect::<Vec<_>>());
            let y = if first { y } else { normalized(&mut net, &y, n_groups * n_out) };
            let left: &[&str] = if first && transposed { &["BatchNormalization", &name] } else { &[&name] };
            check(&net.finish(&y), left);
        }
    }
}
