//! The sources at their boundary: real repositories made with the `git` program in temporary directories, served from
//! disk or by `git http-backend` behind a small server on loopback.

mod fixture;
mod http;
mod local;
mod pure;
