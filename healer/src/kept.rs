//! How times are written down.

/// A point on the boot-time clock, in nanoseconds since boot.
pub(crate) mod time {
    use std::time::Duration;

    use holdfast_core::clock::BootTime;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &BootTime, to: S) -> Result<S::Ok, S::Error> {
        // Five centuries.
        to.serialize_u64(u64::try_from(at.since_boot().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BootTime, D::Error> {
        u64::deserialize(from).map(|ns| BootTime::new(Duration::from_nanos(ns)))
    }
}

/// The same, or nothing.
pub(crate) mod maybe_time {
    use std::time::Duration;

    use holdfast_core::clock::BootTime;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        at: &Option<BootTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let ns = |at: BootTime| u64::try_from(at.since_boot().as_nanos()).unwrap_or(u64::MAX);
        at.map(ns).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<BootTime>, D::Error> {
        let ns = Option::<u64>::deserialize(from)?;
        Ok(ns.map(|ns| BootTime::new(Duration::from_nanos(ns))))
    }
}
