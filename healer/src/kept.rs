//! How times are written down: in nanoseconds since boot.

use std::time::Duration;

use holdfast_core::clock::BootTime;

fn nanoseconds(at: BootTime) -> u64 {
    // Five centuries are enough.
    u64::try_from(at.since_boot().as_nanos()).unwrap_or(u64::MAX)
}

fn at(nanoseconds: u64) -> BootTime {
    BootTime::new(Duration::from_nanos(nanoseconds))
}

/// A point on the boot-time clock.
pub(crate) mod time {
    use holdfast_core::clock::BootTime;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &BootTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(super::nanoseconds(*at))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BootTime, D::Error> {
        u64::deserialize(from).map(super::at)
    }
}

/// The same, or nothing.
pub(crate) mod maybe_time {
    use holdfast_core::clock::BootTime;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        at: &Option<BootTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(super::nanoseconds).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<BootTime>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(super::at))
    }
}
