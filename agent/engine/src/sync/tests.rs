//! Tests of the machine against the simulated cluster.
