//! Convolutions and matrix products.

use std::collections::BTreeMap;

use super::{Facts, Map, Port, Slot, Weight, elementwise, input, output};

/// Where a convolution's inputs are.
#[derive(Clone, Copy)]
pub(super) struct ConvInputs {
    weight: usize,
    bias: Option<usize>,
    /// Those that may have an element for each output channel.
    by_channel: &'static [usize],
}

pub(super) const CONV: ConvInputs = ConvInputs { weight: 1, bias: Some(2), by_channel: &[2] };
pub(super) const CONV_INTEGER: ConvInputs = ConvInputs { weight: 1, bias: None, by_channel: &[3] };
pub(super) const QLINEAR_CONV: ConvInputs = ConvInputs { weight: 3, bias: Some(8), by_channel: &[4, 5, 8] };

/// `X [N, C, …]`, `W [M, C / group, …]`, `B [M]` to `Y [N, M, …]`.
pub(super) fn conv(facts: &mut Facts<'_>, group: i64, inputs: ConvInputs) {
    let weight = input(inputs.weight, 0);
    facts.same(input(0, 0), output(0, 0));
    facts.same(weight, output(0, 1));
    elementwise::by_slice(facts, inputs.by_channel, Some(output(0, 1)));
    let bias = inputs.bias.filter(|&bias| facts.node.input(bias).is_some());
    facts.axes.weights.push(Weight { position: inputs.weight, output_axis: 0, input_axis: Some(1), bias });
    channel_groups(facts, group, Slot { axis: 1, ..weight }, weight);
    window(facts, inputs.weight);
}

/// `X [N, C, …]`, `W [C, M / group, …]`, `B [M]` to `Y [N, M, …]`.
pub(super) fn conv_transpose(facts: &mut Facts<'_>, group: i64) {
    facts.same(input(0, 0), output(0, 0));
    facts.same(input(2, 0), output(0, 1));
    let bias = facts.node.input(2).map(|_| 2);
    facts.axes.weights.push(Weight { position: 1, output_axis: 1, input_axis: Some(0), bias });
    if group == 1 {
        facts.same(input(1, 1), output(0, 1));
        facts.contract(input(0, 1), input(1, 0));
    } else {
        // Each group makes as many channels from the same columns of its own rows: whole groups only.
        facts.same(input(0, 1), input(1, 0));
        facts.pin(input(1, 1), "every group of channels shares it");
        whole_groups(facts, group, &[input(0, 1), output(0, 1)]);
    }
    window(facts, 1);
}

/// The channels of the input: summed over, group by group. `summed` is the weight's axis of them, `made` that of the
/// channels it makes.
fn channel_groups(facts: &mut Facts<'_>, group: i64, summed: Slot, made: Slot) {
    match group {
        1 => facts.contract(input(0, 1), summed),
        _ => {
            facts.pin(summed, "every group of channels shares it");
            whole_groups(facts, group, &[input(0, 1), made]);
        }
    }
}

/// Ties all the channels of a group on each of these axes.
pub(super) fn whole_groups(facts: &mut Facts<'_>, n_groups: i64, slots: &[Slot]) {
    let Some(n_groups) = usize::try_from(n_groups).ok().filter(|&n_groups| n_groups > 0) else {
        return facts.pin_all("its number of groups is out of range");
    };
    let bundle = facts.bundle(n_groups);
    for &slot in slots {
        let inner = facts.size(slot).unwrap_or(0) / n_groups;
        facts.tie(bundle, slot, Map::Blocks { outer: 1, inner });
    }
}

/// The spatial axes: the output's places are other ones than the input's.
fn window(facts: &mut Facts<'_>, weight: usize) {
    for port in [Port::Input(0), Port::Input(weight), Port::Output(0)] {
        (2..facts.rank(port)).for_each(|axis| facts.pin(Slot { port, axis }, "a window moves along it"));
    }
}

/// Where a matrix product's operands are, and the scales and zero points of A's rows and of B's columns.
#[derive(Clone, Copy)]
pub(super) struct MatMulInputs {
    b: usize,
    by_row: &'static [usize],
    by_column: &'static [usize],
}

pub(super) const MATMUL: MatMulInputs = MatMulInputs { b: 1, by_row: &[], by_column: &[] };
pub(super) const MATMUL_INTEGER: MatMulInputs = MatMulInputs { b: 1, by_row: &[2], by_column: &[3] };
pub(super) const QLINEAR_MATMUL: MatMulInputs = MatMulInputs { b: 3, by_row: &[1, 2], by_column: &[4, 5] };

/// `A [.., m, k]` and `B [.., k, n]` to `Y [.., m, n]`; one-dimensional operands have only `k`.
pub(super) fn matmul(facts: &mut Facts<'_>, inputs: MatMulInputs) {
    let (a, b) = (0, inputs.b);
    let [a_rank, b_rank, rank] = [Port::Input(a), Port::Input(b), Port::Output(0)].map(|port| facts.rank(port));
    if a_rank == 0 || b_rank == 0 {
        return facts.pin_all("an operand is a scalar");
    }
    // Axes of the output before those of the matrix itself.
    let matrix_axes = usize::from(a_rank >= 2) + usize::from(b_rank >= 2);
    let Some(n_batch) = rank.checked_sub(matrix_axes) else { return facts.pin_all("its output has too few axes") };
    facts.contract(input(a, a_rank - 1), input(b, b_rank.saturating_sub(2)));
    if b_rank >= 2 {
        let (output_axis, input_axis) = (b_rank - 1, Some(b_rank - 2));
        facts.same(input(b, output_axis), output(0, rank - 1));
        facts.axes.weights.push(Weight { position: b, output_axis, input_axis, bias: None });
    }
    if a_rank >= 2 {
        let (output_axis, input_axis) = (a_rank - 2, Some(a_rank - 1));
        facts.same(input(a, output_axis), output(0, n_batch));
        facts.axes.weights.push(Weight { position: a, output_axis, input_axis, bias: None });
    }
    elementwise::by_slice(facts, inputs.by_row, a_rank.checked_sub(2).map(|axis| input(a, axis)));
    elementwise::by_slice(facts, inputs.by_column, (b_rank >= 2).then(|| input(b, b_rank - 1)));
    for (position, own_rank) in [(a, a_rank), (b, b_rank)] {
        let own_batch = own_rank.saturating_sub(2);
        for axis in 0..own_batch {
            match (axis + n_batch).checked_sub(own_batch) {
                Some(other) => facts.same(input(position, axis), output(0, other)),
                None => facts.pin(input(position, axis), "the output has no such axis"),
            }
        }
    }
}

/// `α · A · B + β · C`, A `[m, k]` and B `[k, n]` transposed where the attributes say so; C is broadcast.
pub(super) fn gemm(facts: &mut Facts<'_>, trans_a: bool, trans_b: bool) {
    let (row, summed_a) = if trans_a { (1, 0) } else { (0, 1) };
    let (summed_b, column) = if trans_b { (1, 0) } else { (0, 1) };
    facts.same(input(0, row), output(0, 0));
    facts.same(input(1, column), output(0, 1));
    facts.contract(input(0, summed_a), input(1, summed_b));
    let bias_rank = facts.rank(Port::Input(2));
    for axis in 0..bias_rank.min(2) {
        facts.same(input(2, axis), output(0, axis + 2 - bias_rank.min(2)));
    }
    let bias = facts.node.input(2).map(|_| 2);
    facts.axes.weights.push(Weight { position: 1, output_axis: column, input_axis: Some(summed_b), bias });
}

/// Axes of the same letter go together; letters that the output lacks are summed over.
pub(super) fn einsum(facts: &mut Facts<'_>, equation: &str) {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let Some((left, right)) = equation.split_once("->") else {
        return facts.pin_all("its equation names no output");
    };
    let terms: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
    let result: Vec<char> = right.chars().collect();
    let ranks_fit = terms.iter().enumerate().all(|(position, term)| facts.rank(Port::Input(position)) == term.len());
    if equation.contains('.') || !ranks_fit || facts.rank(Port::Output(0)) != result.len() {
        return facts.pin_all("its equation is not of plain letters");
    }
    let of_output = result.iter().enumerate().map(|(axis, &letter)| (letter, output(0, axis)));
    let of_inputs = terms.iter().enumerate().flat_map(|(position, term)| {
        term.iter().enumerate().map(move |(axis, &letter)| (letter, input(position, axis)))
    });
    let mut first: BTreeMap<char, Slot> = BTreeMap::new();
    for (letter, slot) in of_output.chain(of_inputs) {
        let other = *first.entry(letter).or_insert(slot);
        if facts.dim(other) != facts.dim(slot) {
            return facts.pin_all("an axis of size one is repeated");
        }
        match (other == slot, result.contains(&letter)) {
            (true, _) => {}
            (false, true) => facts.same(other, slot),
            (false, false) => facts.contract(other, slot),
        }
    }
    for slot in first.into_values().filter(|slot| matches!(slot.port, Port::Input(_))) {
        let is_paired = facts.axes.contracted.iter().any(|(a, b)| *a == slot || *b == slot);
        if !is_paired {
            facts.cross(slot);
        }
    }
    einsum_weight(facts, &terms, &result);
}

/// The second operand is a weight where it has one letter that goes into the output and one that is summed over.
fn einsum_weight(facts: &mut Facts<'_>, terms: &[Vec<char>], result: &[char]) {
    let [first, second] = terms else { return };
    let output_axis = second.iter().position(|letter| result.contains(letter) && !first.contains(letter));
    let input_axis = second.iter().position(|letter| !result.contains(letter) && first.contains(letter));
    if let Some(output_axis) = output_axis {
        facts.axes.weights.push(Weight { position: 1, output_axis, input_axis, bias: None });
    }
}
