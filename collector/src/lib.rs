//! The collector: takes what agents report, keeps it, and answers operators.

#![forbid(unsafe_code)]

pub mod api;
pub mod buckets;
pub mod cli;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod fleet;
pub mod history;
pub mod ingest;
pub mod metrics;
pub mod model;
pub mod session;
pub mod state;
pub mod store;
