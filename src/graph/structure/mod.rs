//! What a network is made of, found by shape and not by name: channels that hang together, residual blocks, attention,
//! encoder layers, recurrent hidden units.

pub mod groups;
pub mod removal;

mod attention;
mod blocks;
mod encoder;
mod feed_forward;
mod flow;
mod linear;
#[cfg(test)]
mod networks;
mod recurrent;
mod residual;
mod sizes;
mod span;

pub use attention::Attention;
pub use blocks::{Structure, show, structure};
pub use encoder::{EncoderLayer, Norm};
pub use feed_forward::FeedForward;
pub use recurrent::RecurrentLayer;
pub use residual::{ResidualBlock, Skip};
pub use span::{Span, StructureError, bypass};
