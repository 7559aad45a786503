//! What a person on the host may ask: the gRPC service `Local` over a Unix socket.
//!
//! The socket is open to root and to the agent's own user; who asks is known from
//! the kernel (peer credentials), not from what is sent. To prove the probes it provokes a
//! few events within a cgroup of its own; orders about healing go through the same guards as
//! what the healer decides by itself.

mod healing;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_proto::v1::local_server::{Local, LocalServer};
use holdfast_proto::{limits, v1};
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::blame;
use crate::doctor;
use crate::host::Root;
use crate::report::{self, LinkState, ProbeStatus};
use crate::scorer::{Change, Feedback, JudgeError};
use crate::uplink::wire;

/// Longest measurement that may be asked for.
const LONGEST_MEASURE: Duration = Duration::from_secs(10);
/// Longest that proving the probes may take; the sampler sees to it.
pub(crate) const LONGEST_ATTEST: Duration = Duration::from_secs(3);
/// The sampler answers within a tick; more means that it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest note of a change, in bytes.
const LONGEST_NOTE: usize = 200;
/// Requests under way at once on one connection.
const CONCURRENCY: usize = 8;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent serves it.
    #[error("another agent listens on {}; stop it, or give this one another --socket", .0.display())]
    Taken(PathBuf),
    /// There is something else at its place.
    #[error("{} exists and is no socket; remove it, or give another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {} (give a --socket in a folder that may be written)", path.display())]
    Listen {
        /// Where the socket should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket; removed when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Socket {
    /// Binds `path`, in place of a socket that nobody listens on any more.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub async fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Listen { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(Error::Taken(path.to_owned()));
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener: Some(listener) })
    }

    /// Serves `api` until `shutdown`.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] when the listener breaks.
    pub async fn serve(mut self, api: Api, shutdown: CancellationToken) -> Result<(), Error> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let service = LocalServer::new(api).max_decoding_message_size(limits::MESSAGE_BYTES);
        Server::builder()
            .concurrency_limit_per_connection(CONCURRENCY)
            .timeout(LONGEST_MEASURE + ANSWER_TIMEOUT)
            .add_service(service)
            .serve_with_incoming_shutdown(
                UnixListenerStream::new(listener),
                shutdown.cancelled_owned(),
            )
            .await
            .map_err(|error| Error::Listen {
                path: self.path.clone(),
                source: io::Error::other(error),
            })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The service; asks the sampler and the uplink.
#[derive(Debug, Clone)]
pub struct Api {
    /// Name of the host in the fleet.
    pub host: String,
    /// The running kernel.
    pub kernel_release: String,
    /// The host's files, for the doctor.
    pub root: Root,
    /// The limit the eBPF maps were sized for.
    pub map_limit_bytes: u64,
    /// Where the sampler takes requests.
    pub requests: mpsc::Sender<report::Request>,
    /// How the uplink is doing.
    pub link: watch::Receiver<LinkState>,
    /// Where the healer takes requests; `None` when healing is switched off.
    pub healer: Option<mpsc::Sender<crate::healing::Request>>,
}

impl Api {
    async fn ask<T>(
        &self,
        request: report::Request,
        answer: oneshot::Receiver<T>,
        patience: Duration,
    ) -> Result<T, Status> {
        ask(&self.requests, request, answer, patience, "sampler").await
    }
}

/// Asks the stage `whom`, and waits for what it answers.
async fn ask<R, T>(
    to: &mpsc::Sender<R>,
    request: R,
    answer: oneshot::Receiver<T>,
    patience: Duration,
    whom: &str,
) -> Result<T, Status> {
    let busy = |_| Status::unavailable("the agent is busy; try again in a moment");
    to.try_send(request).map_err(busy)?;
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Status::unavailable("the agent is stopping")),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the agent's {whom} does not answer; see its log"
        ))),
    }
}

/// Root and the agent's own user may ask.
fn check_peer<T>(request: &Request<T>) -> Result<(), Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    match peer {
        Some(peer) if peer.uid() == 0 || Uid::from_raw(peer.uid()) == Uid::effective() => Ok(()),
        _ => Err(Status::permission_denied(
            "only root and the agent's own user may ask the agent; try sudo",
        )),
    }
}

#[tonic::async_trait]
impl Local for Api {
    async fn get_probes(
        &self,
        request: Request<v1::GetProbesRequest>,
    ) -> Result<Response<v1::GetProbesResponse>, Status> {
        check_peer(&request)?;
        let measure = Duration::from_millis(request.into_inner().measure_ms.into());
        if measure > LONGEST_MEASURE {
            return Err(Status::invalid_argument("a measurement takes at most 10 s"));
        }
        let (sender, answer) = oneshot::channel();
        let request = report::Request::Probes { measure, answer: sender };
        let report = self.ask(request, answer, measure + ANSWER_TIMEOUT).await?;
        let overhead = report.overhead.unwrap_or_default();
        let probe = |status: &ProbeStatus| {
            let governed = overhead.probes.iter().find(|governed| governed.probe == status.name);
            let cost = governed.map_or(0.0, |governed| governed.cost);
            v1::ProbeReport { cost, ..wire::probe(status) }
        };
        let age = overhead.measured.map(|measured| BootTime::now().since(measured));
        Ok(Response::new(v1::GetProbesResponse {
            probe: report.probes.iter().map(probe).collect(),
            map_bytes: report.map_bytes,
            map_limit_bytes: report.map_limit_bytes,
            slots_used: report.slots_used,
            slots: report.slots,
            measure_error: wire::text(&report.measure_error),
            cost: overhead.cost,
            cost_budget: overhead.budget,
            cost_basis: overhead.basis.name().to_owned(),
            cost_age_seconds: age.unwrap_or_default().as_secs_f64(),
            cost_note: wire::text(&report.overhead_note),
        }))
    }

    async fn get_blame(
        &self,
        request: Request<v1::GetBlameRequest>,
    ) -> Result<Response<v1::GetBlameResponse>, Status> {
        check_peer(&request)?;
        let v1::GetBlameRequest { unit, last_ms } = request.into_inner();
        if !limits::is_instance(&unit) {
            return Err(Status::invalid_argument("name a unit, such as nginx.service"));
        }
        let last = Duration::from_millis(last_ms.into());
        if last > blame::LONGEST {
            return Err(Status::invalid_argument("blame is kept for five minutes"));
        }
        let (sender, answer) = oneshot::channel();
        let request = report::Request::Blame { unit, last, answer: sender };
        let report = self.ask(request, answer, ANSWER_TIMEOUT).await?;
        Ok(Response::new(wire::blame(&report.map_err(Status::not_found)?)))
    }

    async fn attest(
        &self,
        request: Request<v1::AttestRequest>,
    ) -> Result<Response<v1::AttestResponse>, Status> {
        check_peer(&request)?;
        let disruptive = request.into_inner().disruptive;
        let (sender, answer) = oneshot::channel();
        let request = report::Request::Attest { disruptive, answer: sender };
        let report = self.ask(request, answer, LONGEST_ATTEST + ANSWER_TIMEOUT).await?;
        Ok(Response::new(wire::attest(&report)))
    }

    async fn list_episodes(
        &self,
        request: Request<v1::ListEpisodesRequest>,
    ) -> Result<Response<v1::ListEpisodesResponse>, Status> {
        check_peer(&request)?;
        let (sender, answer) = oneshot::channel();
        let request = report::Request::Episodes { answer: sender };
        let episodes = self.ask(request, answer, ANSWER_TIMEOUT).await?;
        Ok(Response::new(v1::ListEpisodesResponse {
            off: episodes.is_none(),
            episode: episodes.unwrap_or_default().iter().map(wire::episode).collect(),
        }))
    }

    async fn judge_episode(
        &self,
        request: Request<v1::JudgeEpisodeRequest>,
    ) -> Result<Response<v1::JudgeEpisodeResponse>, Status> {
        check_peer(&request)?;
        let v1::JudgeEpisodeRequest { id, judgement } = request.into_inner();
        let feedback = match v1::EpisodeJudgement::try_from(judgement) {
            Ok(v1::EpisodeJudgement::False) => Feedback::False,
            Ok(v1::EpisodeJudgement::Real) => Feedback::Real,
            _ => return Err(Status::invalid_argument("an episode was false or real")),
        };
        let (sender, answer) = oneshot::channel();
        let request = report::Request::Judge { id, feedback, answer: sender };
        match self.ask(request, answer, ANSWER_TIMEOUT).await? {
            Ok(()) => Ok(Response::new(v1::JudgeEpisodeResponse {})),
            Err(error @ JudgeError::Unknown(_)) => Err(Status::not_found(error.to_string())),
            Err(error) => Err(Status::failed_precondition(error.to_string())),
        }
    }

    async fn note_change(
        &self,
        request: Request<v1::NoteChangeRequest>,
    ) -> Result<Response<v1::NoteChangeResponse>, Status> {
        check_peer(&request)?;
        let v1::NoteChangeRequest { unit, text } = request.into_inner();
        if !unit.is_empty() && !limits::is_instance(&unit) {
            return Err(Status::invalid_argument("name a unit, such as nginx.service"));
        }
        let text = wire::text(text.trim());
        if text.is_empty() || text.len() > LONGEST_NOTE || text.contains('\n') {
            let problem = "say in one line of at most 200 bytes what changes";
            return Err(Status::invalid_argument(problem));
        }
        let change = Change::Note { unit: unit.into(), text };
        let (sender, answer) = oneshot::channel();
        let request = report::Request::Change { change, answer: sender };
        if self.ask(request, answer, ANSWER_TIMEOUT).await? {
            Ok(Response::new(v1::NoteChangeResponse {}))
        } else {
            Err(Status::failed_precondition(JudgeError::Off.to_string()))
        }
    }

    async fn get_calibration(
        &self,
        request: Request<v1::GetCalibrationRequest>,
    ) -> Result<Response<v1::GetCalibrationResponse>, Status> {
        check_peer(&request)?;
        let (sender, answer) = oneshot::channel();
        let request = report::Request::Calibration { answer: sender };
        let calibration = self.ask(request, answer, ANSWER_TIMEOUT).await?;
        Ok(Response::new(wire::calibration(calibration.as_ref())))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        check_peer(&request)?;
        Ok(Response::new(healing::list(&self.healer).await?))
    }

    async fn order_healing(
        &self,
        request: Request<v1::OrderHealingRequest>,
    ) -> Result<Response<v1::OrderHealingResponse>, Status> {
        check_peer(&request)?;
        Ok(Response::new(healing::order(&self.healer, request.into_inner()).await?))
    }

    async fn explain_operation(
        &self,
        request: Request<v1::ExplainOperationRequest>,
    ) -> Result<Response<v1::ExplainOperationResponse>, Status> {
        check_peer(&request)?;
        let operation = request.into_inner().operation;
        Ok(Response::new(healing::explain(&self.healer, operation).await?))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        check_peer(&request)?;
        let (sender, answer) = oneshot::channel();
        let status =
            self.ask(report::Request::Status { answer: sender }, answer, ANSWER_TIMEOUT).await?;
        let link = self.link.borrow().clone();
        Ok(Response::new(v1::GetStatusResponse {
            host: self.host.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: self.kernel_release.clone(),
            vitals: Some(wire::vitals(&status.vitals)),
            units: status.units,
            ..wire::status(status.uptime_seconds, &status.newest, &link)
        }))
    }

    async fn get_doctor(
        &self,
        request: Request<v1::GetDoctorRequest>,
    ) -> Result<Response<v1::GetDoctorResponse>, Status> {
        check_peer(&request)?;
        let (root, map_limit) = (self.root.clone(), self.map_limit_bytes);
        // Files of the kernel, but a good number of them.
        let findings =
            tokio::task::spawn_blocking(move || doctor::examine(&root, map_limit)).await.map_err(
                |_| Status::internal("the host could not be looked at; see the agent's log"),
            )?;
        let finding = findings.iter().map(wire::finding).collect();
        Ok(Response::new(v1::GetDoctorResponse { finding }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.sock");
        let first = Socket::bind(&path).await.expect("binds");
        assert!(matches!(Socket::bind(&path).await, Err(Error::Taken(_))));
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale socket"));
        assert!(path.exists());
        drop(Socket::bind(&path).await.expect("replaces it"));

        std::fs::write(&path, "precious").expect("a file");
        assert!(matches!(Socket::bind(&path).await, Err(Error::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    }

    #[test]
    fn without_credentials_nobody_may_ask() {
        let refused = check_peer(&Request::new(())).expect_err("no credentials");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }
}
