//! No-ops, reshapes, zero states.

use super::{check, check_declined, check_kept};

#[test]
fn nodes_that_change_nothing_are_removed() {
    for line in [
        "y = Identity(x)",
        "y = Dropout(x)",
        "y = Cast(x) {to=1}",
        "y = Transpose(x) {perm=[0, 1]}",
        "y = Concat(x) {axis=0}",
        "y = Max(x)",
        "y = Add(x, zero)",
        "y = Add(zero, x)",
        "y = Sub(x, zero)",
        "y = Mul(one, x)",
        "y = Div(x, one)",
        "y = Pow(x, one)",
        "y = Pad(x, none)",
        "y = Tile(x, ones)",
        "y = Expand(x, ones)",
        "y = Reshape(x, copy)",
        "y = Flatten(x)",
        "y = Slice(x, starts, ends, axis)",
        "y = Slice(x, starts, end)",
        "y = Clip(x)",
    ] {
        check(
            &format!(
                "in w: f32[n, 4]
                 init zero: f32[1, 4] 0
                 init one: f32[] 1
                 init none: i64[4] 0
                 init ones: i64[2] 1
                 init copy: i64[2] 0 -1
                 init starts: i64[1] 0
                 init ends: i64[1] 99
                 init axis: i64[1] 1
                 init end: i64[1] 2147483647
                 x = Exp(w)
                 {line}
                 z = Relu(y)
                 out z"
            ),
            "%x = Exp(%w)
             %z = Relu(%x)",
        );
    }
}

#[test]
fn nodes_that_change_something_stay() {
    for line in [
        "y = Add(x, zeros)",
        "y = Mul(x, two)",
        "y = Div(one, x)",
        "y = Sub(zero, x)",
        "y = Cast(x) {to=11}",
        "y = Transpose(x) {perm=[1, 0]}",
        "y = Slice(x, last, first, rows, back)",
        "y = Pad(x, shift)",
        "y = Dropout(x, half, train)",
    ] {
        let text = format!(
            "in w: f32[1, 4]
             init zeros: f32[2, 1] 0
             init two: f32[] 2
             init one: f32[] 1
             init zero: f32[] 0
             init last: i64[1] -1
             init first: i64[1] -99
             init rows: i64[1] 0
             init back: i64[1] -1
             init shift: i64[4] 0 1 0 -1
             init half: f32[] 0
             init train: bool[] 1
             x = Exp(w)
             {line}
             out y"
        );
        let operator = line.split_once(" = ").and_then(|(_, call)| call.split_once('(')).expect("a node").0;
        let unread = |line: &&str| {
            !line.trim().starts_with("init")
                || text.contains(&format!(", {}", name(line)))
                || text.contains(&format!("({},", name(line)))
        };
        let text: String = text.lines().filter(unread).map(|line| format!("{line}\n")).collect();
        let graph = super::graph(&text);
        let after = if operator == "Dropout" {
            super::super::simplify(&graph, &Default::default()).expect("types fit")
        } else {
            super::simplified(&graph, &Default::default())
        };
        assert_eq!(after.graph.nodes.len(), 2, "{line}");
    }
}

fn name(line: &str) -> &str {
    line.trim().trim_start_matches("init ").split(':').next().unwrap_or_default()
}

#[test]
fn an_input_that_is_an_output_keeps_its_identity() {
    check_kept(
        "in x: f32[4]
         y = Identity(x)
         out y",
    );
}

#[test]
fn a_computed_shape_becomes_a_constant_one() {
    check(
        "in x: f32[n, 4, 6]
         init zero: i64[] 0
         init axis: i64[1] 0
         init rest: i64[1] -1
         s = Shape(x)
         n = Gather(s, zero)
         n1 = Unsqueeze(n, axis)
         t = Concat(n1, rest) {axis=0}
         y = Reshape(x, t)
         z = Relu(y)
         out z",
        "init %t_2: i64[2] [0, 24]
         %y = Reshape(%x, %t_2)
         %z = Relu(%y)",
    );
}

#[test]
fn a_shape_of_two_unknowns_is_declined() {
    check_declined(
        "in x: f32[n, m]
         in z: f32[a, b]
         s = Shape(z)
         t = Abs(s)
         y = Reshape(x, t)
         out y",
        &["more than one dimension"],
    );
}

#[test]
fn reshapes_in_a_row_are_one_or_none() {
    check(
        "in x: f32[n, 4, 6]
         init flat: i64[2] 0 -1
         init back: i64[3] -1 4 6
         init other: i64[3] 0 2 12
         a = Reshape(x, flat)
         b = Reshape(a, back)
         c = Relu(b)
         d = Reshape(c, flat)
         e = Reshape(d, other)
         out e",
        "init %e_shape: i64[3] [0, 2, 12]
         %c = Relu(%x)
         %e = Reshape(%c, %e_shape)",
    );
}

#[test]
fn an_unsqueeze_and_a_squeeze_cancel() {
    check(
        "in x: f32[?, m]
         init axis: i64[1] 1
         a = Unsqueeze(x, axis)
         b = Squeeze(a, axis)
         y = Relu(b)
         out y",
        "%y = Relu(%x)",
    );
}

#[test]
fn a_reshape_that_others_read_stays() {
    check_kept(
        "in x: f32[2, 3, 4]
         init flat: i64[2] 2 12
         init all: i64[1] 24
         a = Reshape(x, flat)
         b = Reshape(a, all)
         out a
         out b",
    );
}

#[test]
fn zero_states_are_left_out() {
    check(
        "in x: f32[3, n, 4]
         init w: f32[1, 8, 4]
         init r: f32[1, 8, 2]
         init one: i64[1] 1
         init two: i64[1] 2
         init axis: i64[] 1
         s = Shape(x)
         b = Gather(s, one)
         t = Concat(one, b, two) {axis=0}
         h = ConstantOfShape(t)
         y = LSTM(x, w, r, _, _, h, h) {hidden_size=2}
         out y",
        "init %w: f32[1, 8, 4] #e31fa44c
         init %r: f32[1, 8, 2] #e64c43cf
         %y = LSTM(%x, %w, %r) {hidden_size=2}",
    );
}

#[test]
fn states_that_are_given_stay() {
    check_kept(
        "in x: f32[3, 2, 4]
         in h: f32[1, 2, 2]
         init w: f32[1, 6, 4]
         init r: f32[1, 6, 2]
         y = GRU(x, w, r, _, _, h) {hidden_size=2}
         out y",
    );
}
