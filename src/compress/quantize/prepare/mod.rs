//! What is done to a network of floats so that its integers lose less: each step is a function from a graph to a graph that
//! computes the same, or, for biases, what makes up for the rounding to come.
//!
//! | step | what it changes | from |
//! |---|---|---|
//! | [`equalize()`] | the channels between two products, so that their weights fill one range | the weights alone |
//! | [`absorb_high_bias()`] | biases that lift a channel far above zero go into the next product's | pre-activations |
//! | [`smooth()`] | the channels that products read, so that none of them is an outlier | what products read |
//! | [`correct_biases()`] | biases, by the mean of what the rounding of the weights adds | what products read |
//!
//! What a step has to know of the data it names by value and channel axis; [`channels`](crate::compress::observe::channels) counts that.

mod absorb;
mod correct;
mod edits;
mod equalize;
mod link;
mod product;
mod smooth;
#[cfg(test)]
mod tests;

pub use absorb::{absorb_high_bias, absorb_values};
pub use correct::{Corrected, correct_biases, correct_values};
pub use equalize::equalize;
pub use smooth::{smooth, smooth_values};

use crate::graph::{Graph, Node};

/// A node that a step was meant for and did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

impl Declined {
    fn new(node: &Node, reason: impl Into<String>) -> Declined {
        Declined { node: node.label(), reason: reason.into() }
    }
}

/// A network after a step.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The network: the same nodes, other constants.
    pub graph: Graph,
    /// The nodes whose channels were changed, in the order of the graph.
    pub done: Vec<String>,
    /// The nodes that were left, and why.
    pub declined: Vec<Declined>,
}
