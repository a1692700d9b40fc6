//! What the rules say of single operators.
