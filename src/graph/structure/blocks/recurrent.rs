//! Recurrent layers and their sizes.

use serde::Serialize;

use super::flow::Flow;
use crate::graph::Op;
use crate::graph::op::Direction;

/// One recurrent operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecurrentLayer {
    /// The node's position.
    pub node: usize,
    /// `LSTM`, `GRU`, `RNN` or `DynamicQuantizeLSTM`.
    pub operator: &'static str,
    /// The size of the hidden state in one direction.
    pub hidden_size: Option<usize>,
    /// The number of features that it reads at each step.
    pub input_size: Option<usize>,
    /// 2 where it walks the sequence both ways, else 1.
    pub n_directions: usize,
    /// Whether it walks the sequence from its end, where there is one direction.
    pub reverse: bool,
}

/// The recurrent layers of a graph, in order.
pub(super) fn recurrent_layers(flow: &Flow<'_>) -> Vec<RecurrentLayer> {
    (0..flow.graph.nodes.len()).filter_map(|node_idx| layer(flow, node_idx)).collect()
}

fn layer(flow: &Flow<'_>, node_idx: usize) -> Option<RecurrentLayer> {
    let node = flow.node(node_idx).filter(|_| flow.is_live(node_idx))?;
    let (operator, direction, stated) = match &node.op {
        Op::LSTM(lstm) => ("LSTM", lstm.direction, lstm.hidden_size),
        Op::GRU(gru) => ("GRU", gru.direction, gru.hidden_size),
        Op::RNN(rnn) => ("RNN", rnn.direction, rnn.hidden_size),
        Op::DynamicQuantizeLSTM(lstm) => ("DynamicQuantizeLSTM", lstm.direction, lstm.hidden_size),
        _ => return None,
    };
    // W is [directions, gates · hidden, features] and R [directions, gates · hidden, hidden], here with the last two swapped
    let transposed = matches!(node.op, Op::DynamicQuantizeLSTM(_));
    let size = |position: usize| {
        let dims = &flow.types.tensor(node.input(position)?)?.shape;
        dims.as_ref()?.get(if transposed { 1 } else { 2 })?.known()
    };
    let features = || flow.types.tensor(node.input(0)?)?.shape.as_ref()?.last()?.known();
    Some(RecurrentLayer {
        node: node_idx,
        operator,
        hidden_size: stated.and_then(|size| usize::try_from(size).ok()).or_else(|| size(2)),
        input_size: size(1).or_else(features),
        n_directions: if direction == Direction::Bidirectional { 2 } else { 1 },
        reverse: direction == Direction::Reverse,
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::op::{Direction, GRU, LSTM, RNN};
    use crate::graph::structure::blocks::networks::{Net, lines};
    use crate::graph::{Name, Node, Op};

    #[test]
    fn sizes_come_from_attributes_and_weights() {
        let mut net = Net::new();
        let x = net.steps();
        let layer = |net: &mut Net, op: Op, n_directions: usize, rows: usize, x: &Name, output: &str| {
            let (w, r) = (net.weights(&[n_directions, rows, 8]), net.weights(&[n_directions, rows, 5]));
            let inputs = [x, &w, &r].map(|name| Some(name.clone())).to_vec();
            net.builder.push(Node::new(op, inputs, vec![Some(output.into())]));
        };
        let lstm = LSTM { direction: Direction::Bidirectional, hidden_size: Some(5), ..LSTM::default() };
        layer(&mut net, Op::LSTM(lstm), 2, 20, &x, "a");
        layer(&mut net, Op::GRU(GRU { direction: Direction::Reverse, ..GRU::default() }), 1, 15, &x, "b");
        layer(&mut net, Op::RNN(RNN::default()), 1, 5, &x, "c");
        for name in ["a", "b"] {
            net.builder.output(&name.into());
        }
        let graph = net.finish(&"c".into());
        assert_eq!(
            lines(&graph, "recurrent layer"),
            "LSTM 8 -> 5  both directions  at LSTM `a`\n\
             GRU 8 -> 5  reverse  at GRU `b`\n\
             RNN 8 -> 5  forward  at RNN `c`"
        );
    }
}
