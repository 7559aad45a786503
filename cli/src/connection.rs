//! The way to the collector and to this host's agent, and what their failures mean.

use std::{error::Error as _, fmt::Display, io, path::Path, time::Duration};

use holdfast_proto::{
    limits::ANSWER_BYTES,
    v1::{local_client::LocalClient, operator_client::OperatorClient},
};
use tokio::time;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    error::{Error, Peer},
    text::clean,
};

/// A connection to the collector's operator service.
pub(crate) type Collector = Connection<OperatorClient<Channel>>;
/// A connection to the local service of this host's agent.
pub(crate) type Agent = Connection<LocalClient<Channel>>;

/// A client, whom it speaks to, and how long it waits.
pub(crate) struct Connection<C> {
    client: C,
    peer: Peer,
    address: String,
    timeout: Duration,
}

impl Collector {
    /// Connects to the collector at an `http://` address.
    pub(crate) async fn connect(address: &str, timeout: Duration) -> Result<Self, Error> {
        if address.starts_with("https://") {
            return Err(Error::Tls(clean(address)));
        }
        if !address.starts_with("http://") {
            return Err(Error::Address(clean(address)));
        }
        let channel = open(Peer::Collector, address, address, timeout).await?;
        let client = OperatorClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        Ok(Self { client, peer: Peer::Collector, address: clean(address), timeout })
    }
}

impl Agent {
    /// Connects to the agent's Unix socket at `path`.
    pub(crate) async fn connect(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let address = path.display().to_string();
        let channel = open(Peer::Agent, &address, &format!("unix:{address}"), timeout).await?;
        let client = LocalClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        Ok(Self { client, peer: Peer::Agent, address: clean(&address), timeout })
    }

    /// Waits so much longer for an answer that takes its time.
    pub(crate) fn extend_timeout(&mut self, by: Duration) {
        self.timeout = self.timeout.saturating_add(by);
    }
}

impl<C> Connection<C> {
    /// Sends one request and waits for its answer.
    pub(crate) async fn call<T>(
        &mut self,
        request: impl AsyncFnOnce(&mut C) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        match time::timeout(self.timeout, request(&mut self.client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(no_answer(self.peer, &self.address, self.timeout)),
        }
    }

    /// What a status that came instead of an answer, or in the midst of one, means.
    pub(crate) fn failure(&self, status: &Status) -> Error {
        let (peer, address) = (self.peer, self.address.clone());
        match status.code() {
            Code::NotFound => Error::NotFound(clean(status.message())),
            Code::DeadlineExceeded => no_answer(peer, &address, self.timeout),
            Code::PermissionDenied if peer == Peer::Agent => Error::Forbidden { address },
            // A status with a cause was not sent by the peer: the transport failed.
            _ if status.source().is_some() => {
                Error::Unreachable { peer, address, reason: root_cause(status) }
            }
            // This end read too slowly.
            Code::DataLoss => Error::Ended { peer, address, reason: clean(status.message()) },
            Code::Unavailable => {
                Error::Unreachable { peer, address, reason: clean(status.message()) }
            }
            _ => Error::Refused { peer, message: clean(status.message()) },
        }
    }

    /// The peer closed an answer that has no end.
    pub(crate) fn ended(&self) -> Error {
        let reason = "it closed the stream".to_owned();
        Error::Ended { peer: self.peer, address: self.address.clone(), reason }
    }
}

async fn open(peer: Peer, shown: &str, uri: &str, timeout: Duration) -> Result<Channel, Error> {
    let address = clean(shown);
    let endpoint = Endpoint::from_shared(uri.to_owned())
        .map_err(|_| Error::Address(address.clone()))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10));
    match time::timeout(timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) if peer == Peer::Agent && is_forbidden(&error) => {
            Err(Error::Forbidden { address })
        }
        Ok(Err(error)) => Err(Error::Unreachable { peer, address, reason: root_cause(&error) }),
        Err(_) => Err(no_answer(peer, &address, timeout)),
    }
}

fn no_answer(peer: Peer, address: &str, timeout: Duration) -> Error {
    Error::NoAnswer { peer, address: address.to_owned(), seconds: timeout.as_secs_f64() }
}

/// The innermost cause, which names what happened; the outer ones say
/// "transport error" and the like.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let root = causes(error).last().map_or(String::new(), plain_os_error);
    clean(&root)
}

fn plain_os_error(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_lowercase(),
        None => text,
    }
}

fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl<C> Display for Connection<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.peer, self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::error::{UNREACHABLE, USAGE};

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_dead_port_is_unreachable() {
        // Bound and closed again: nobody listens there.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Collector::connect(&format!("http://{port}"), SOON).await.err().unwrap();
        assert_eq!(error.exit_code(), UNREACHABLE);
        assert_eq!(
            error.to_string(),
            format!("cannot reach the collector at http://{port}: connection refused")
        );
    }

    #[tokio::test]
    async fn a_missing_socket_is_unreachable() {
        let path = Path::new("/nonexistent/agent.sock");
        let error = Agent::connect(path, SOON).await.err().unwrap();
        assert_eq!(error.exit_code(), UNREACHABLE);
        assert_eq!(
            error.to_string(),
            "cannot reach the agent at /nonexistent/agent.sock: no such file or directory"
        );
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let short = Duration::from_millis(50);
        let mut collector = Collector::connect(&address, short).await.unwrap();
        let error = collector
            .call(async |client| client.list_hosts(holdfast_proto::v1::ListHostsRequest {}).await)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
        assert_eq!(error.exit_code(), UNREACHABLE);
    }

    #[tokio::test]
    async fn addresses_that_cannot_be_are_usage_errors() {
        for address in ["127.0.0.1:7401", "https://web1:7401", "http://", "http://a b"] {
            let error = Collector::connect(address, SOON).await.err().unwrap();
            assert_eq!(error.exit_code(), USAGE, "{address}: {error}");
        }
    }
}
