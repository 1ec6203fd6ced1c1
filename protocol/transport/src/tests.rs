//! Tests over loopback sockets.
