//! Which addresses a daemon may listen on.

use std::net::SocketAddr;

/// Why an address was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "refusing to listen on {addr}: anyone who can reach it could read and write without TLS; \
     listen on a loopback address such as 127.0.0.1, or accept the danger with \
     `insecure_plaintext = true` or --insecure-plaintext"
)]
pub struct Error {
    /// The address that is not a loopback address.
    pub addr: SocketAddr,
}

/// Allows a loopback address, and with `insecure` any.
///
/// # Errors
///
/// `addr` can be reached from other hosts and `insecure` is false.
pub fn check_listen(addr: SocketAddr, insecure: bool) -> Result<(), Error> {
    // ::ffff:127.0.0.1 is 127.0.0.1.
    if insecure || addr.ip().to_canonical().is_loopback() { Ok(()) } else { Err(Error { addr }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_allowed_without_tls() {
        for good in ["127.0.0.1:0", "127.8.9.1:7401", "[::1]:7401", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(check_listen(good.parse().unwrap(), false), Ok(()), "{good}");
        }
        for bad in ["0.0.0.0:0", "[::]:7401", "10.0.0.1:7401", "[::ffff:10.0.0.1]:1"] {
            let error = check_listen(bad.parse().unwrap(), false).unwrap_err().to_string();
            assert!(error.contains("insecure_plaintext = true"), "{error}");
            assert_eq!(check_listen(bad.parse().unwrap(), true), Ok(()));
        }
    }
}
