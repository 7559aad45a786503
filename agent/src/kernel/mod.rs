//! Everything that touches BPF. The rest of the agent runs, degraded and saying so, without it.

/// The loaded eBPF programs and their maps.
#[derive(Debug)]
pub struct Kernel {}
