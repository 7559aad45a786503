//! Is a connection accepted?

use tokio::net::TcpStream;

/// Connects, and hangs up.
pub(super) async fn ask(address: &str) -> Result<(), String> {
    connect(address).await.map(drop)
}

/// A connection to `HOST:PORT`.
pub(super) async fn connect(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_open_or_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(ask(&address).await, Ok(()));
        drop(listener);
        let refused = ask(&address).await.unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }
}
