//! `holdfast version`.

use holdfast_proto::PROTOCOL;
use serde::Serialize;

use crate::{error::Error, output::Output};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    protocol_min: u32,
    protocol_max: u32,
}

pub(crate) fn run(output: &mut Output) -> Result<(), Error> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        protocol_min: *PROTOCOL.start(),
        protocol_max: *PROTOCOL.end(),
    };
    output.show(&version, |version, _| format!("holdfast {}\n", version.version))
}
