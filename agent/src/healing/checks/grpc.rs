//! Does it say that it serves, by gRPC's health protocol (`grpc.health.v1`)?

use std::str::FromStr;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

/// Longest answer: it is one number.
const ANSWER_BYTES: usize = 1_024;
const METHOD: &str = "/grpc.health.v1.Health/Check";
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks the server at `address` about `service`; about itself when that is empty.
pub(super) async fn ask(address: &str, service: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_str(&format!("http://{address}"))
        .map_err(|_| "the address cannot be read".to_owned())?;
    let channel =
        endpoint.connect().await.map_err(|error| format!("cannot connect: {}", root(&error)))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES);
    client.ready().await.map_err(|error| format!("cannot connect: {}", root(&error)))?;
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(request, PathAndQuery::from_static(METHOD), codec).await;
    match answer.map(tonic::Response::into_inner) {
        Ok(HealthCheckResponse { status: SERVING }) => Ok(()),
        Ok(HealthCheckResponse { status }) => Err(format!("it says {}", name(status))),
        Err(status) if status.code() == Code::Unimplemented => {
            Err("it does not know gRPC's health protocol".to_owned())
        }
        Err(status) if status.code() == Code::NotFound => Err(format!("it knows no {service}")),
        Err(status) => Err(status.message().to_owned()),
    }
}

const fn name(status: i32) -> &'static str {
    match status {
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}
