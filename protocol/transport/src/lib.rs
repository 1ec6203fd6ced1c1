//! QUIC and TLS for Windlass: the only place that names quinn, rustls, tokio-rustls, rcgen and x509-parser.
//!
//! The parts, in the order in which a connection meets them:
//!
//! - [`identity`]: the trust domain, its certificates, and what a peer's certificate says about it.
//! - [`endpoint`]: QUIC listener and dialer with mutual TLS, tuned and bounded.
//! - [`stream`]: frames of [`windlass_protocol::codec`] over QUIC streams, with deadlines and limits.
//! - [`https`]: TLS over TCP for the API.
//! - [`root`]: a hub's root certificate, fetched by its pin.
//! - [`backoff`]: when to dial again (pure).
//!
//! A successful QUIC handshake does **not** mean that the other side admitted us: with TLS 1.3 a client finishes
//! first and learns of its refusal later. Only the hub's hello on a stream means "connected".
//!
//! This crate carries bytes. It knows no message of the protocol, no token and no revocation: whether a
//! certificate that is valid is also *current* is for the hub's state to say.

pub mod backoff;
pub mod endpoint;
pub mod https;
pub mod identity;
pub mod root;
pub mod stream;

mod admission;
mod tls;

pub use tls::install_crypto_provider;

#[cfg(test)]
mod tests;
