//! Helpers of the passes' tests: small graphs, and the proof that a pass keeps what they compute.
