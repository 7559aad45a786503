//! The wire of Holdfast and the limits both of its ends hold each other to.
//!
//! Messages and services are generated from `holdfast/v1/*.proto`. This crate
//! imports nothing else of the project; wire types end at the rim of each
//! program (`uplink`, `session`, `ingest`, `api`).

#![forbid(unsafe_code)]

pub mod histogram;
pub mod limits;

/// Protocol version 1 of the wire, as generated.
#[expect(missing_docs, reason = "generated from the .proto files, which hold the documentation")]
#[expect(clippy::allow_attributes_without_reason, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}

/// The protocol versions this build speaks, oldest and newest.
pub const PROTOCOL: std::ops::RangeInclusive<u32> = 1..=1;

/// The newest version that both this build and a peer speaking `min..=max` know.
///
/// `None` when the ranges do not meet, or the peer's range is empty.
#[must_use]
pub fn negotiate(min: u32, max: u32) -> Option<u32> {
    let newest = max.min(*PROTOCOL.end());
    (min <= max && newest >= min && newest >= *PROTOCOL.start()).then_some(newest)
}
