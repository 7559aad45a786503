//! Is the answer over HTTP right?

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::tcp;

/// How much of an answer is looked at, and how long its head may be.
const BODY_BYTES: usize = 64 << 10;
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;

/// Asks for `url`; right is a status from the first to the last of `status`, and an answer
/// that contains `contains`.
pub(super) async fn ask(url: &str, status: (u16, u16), contains: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| "the URL cannot be read".to_owned())?;
    let authority = uri.authority().ok_or("the URL names no host")?;
    let host = match authority.port_u16() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => format!("{}:80", authority.host()),
    };
    let stream = tcp::connect(&host).await?;
    let broken = |error: hyper::Error| format!("no HTTP: {error}");
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with this function.
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path)
        .header(HOST, &host)
        .header(USER_AGENT, concat!("holdfast-agent/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    if let Some((credentials, _)) = authority.as_str().rsplit_once('@') {
        let encoded = BASE64_STANDARD.encode(credentials);
        request = request.header(AUTHORIZATION, format!("Basic {encoded}"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|_| "the URL cannot be asked for".to_owned())?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let code = response.status().as_u16();
    if !(status.0..=status.1).contains(&code) {
        return Err(format!("the status is {code}"));
    }
    if contains.is_empty() {
        return Ok(());
    }
    let mut body = Limited::new(response.into_body(), BODY_BYTES);
    let mut answer = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => answer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            // What is beyond is not looked at.
            Err(error) if error.is::<LengthLimitError>() => break,
            Err(error) => return Err(format!("the answer broke off: {error}")),
        }
        if has(&answer, contains.as_bytes()) {
            return Ok(());
        }
    }
    Err(format!("`{contains}` is not in the first {} KiB of the answer", BODY_BYTES >> 10))
}

fn has(answer: &[u8], wanted: &[u8]) -> bool {
    answer.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`; gives back what was asked.
    async fn served(answer: Vec<u8>, url: impl Fn(u16) -> String) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4_096];
            let length = stream.read(&mut asked).await.unwrap();
            // Who asks may hang up before the end.
            let _ = stream.write_all(&answer).await;
            String::from_utf8(asked[..length].to_vec()).unwrap()
        });
        let result = ask(&url, (200, 299), "ok").await;
        (result, server.await.unwrap())
    }

    fn answer(status: u16, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn status_and_content_count() {
        let plain = |port| format!("http://127.0.0.1:{port}/health?a=b");
        let (result, asked) = served(answer(200, b"all ok"), plain).await;
        assert_eq!(result, Ok(()));
        assert!(asked.starts_with("GET /health?a=b HTTP/1.1\r\n"), "{asked}");
        assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
        let (result, _) = served(answer(503, b"ok"), plain).await;
        assert_eq!(result, Err("the status is 503".into()));
        let (result, _) = served(answer(200, b"bad"), plain).await;
        assert!(result.unwrap_err().contains("not in the first 64 KiB"));
    }

    #[tokio::test]
    async fn a_password_goes_where_it_belongs() {
        let with = |port| format!("http://me:secret@127.0.0.1:{port}/");
        let (result, asked) = served(answer(200, b"ok"), with).await;
        assert_eq!(result, Ok(()));
        assert!(asked.to_lowercase().contains("authorization: basic bwu6c2vjcmv0"), "{asked}");
        assert!(!asked.contains("me:secret"), "{asked}");
    }

    #[tokio::test]
    async fn whatever_is_answered_memory_is_bounded() {
        let plain = |port| format!("http://127.0.0.1:{port}/");
        let (result, _) = served(answer(200, &vec![b'x'; 8 << 20]), plain).await;
        assert!(result.unwrap_err().contains("not in the first"));
        let (result, _) = served(b"SSH-2.0-x\r\n".to_vec(), plain).await;
        assert!(result.unwrap_err().contains("no HTTP"));
        let long = [b"HTTP/1.1 200 x\r\nA: ".to_vec(), vec![b'x'; 1 << 20]].concat();
        let (result, _) = served(long, plain).await;
        assert!(result.unwrap_err().contains("no HTTP"));
    }
}
