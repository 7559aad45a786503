//! The HTTP side: is the collector alive, is it ready, what does it count.
//!
//! Every answer closes its connection, so that a connection never outlives the
//! little time it is given.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};

use crate::state::Shared;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All pages.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(missing)
        .layer(middleware::map_response(close))
        .with_state(shared)
}

async fn home() -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Holdfast collector</title>\
         <h1>Holdfast collector {}</h1>\
         <p>It takes what agents report about their hosts, keeps it, and answers the \
         <code>holdfast</code> command over gRPC.</p>\
         <ul><li><a href=\"/healthz\">/healthz</a>: it is alive</li>\
         <li><a href=\"/readyz\">/readyz</a>: it can do its work</li>\
         <li><a href=\"/metrics\">/metrics</a>: what it counts, for Prometheus</li></ul></html>\n",
        env!("CARGO_PKG_VERSION")
    ))
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the collector stops\n")
    } else if !shared.ingest.is_writable() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store cannot be written\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.measure();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    (headers, shared.metrics.encode()).into_response()
}

async fn missing(uri: Uri) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("nothing at {}; see /\n", uri.path()))
}

async fn close(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
