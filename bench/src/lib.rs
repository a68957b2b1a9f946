//! duet: measuring two engines against each other.
