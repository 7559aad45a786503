//! The collector's two faces for people and their tools: gRPC for questions about
//! the fleet, HTTP for health and metrics of the collector itself.

pub mod grpc;
pub mod http;
mod nearest;
mod watch;
mod wire;
