//! Sockets, and which of gateway and API a request goes to.
//!
//! One thread with a single-threaded runtime per worker, each with a listener of
//! its own; the kernel spreads connections over them. A proxied request stays on
//! its worker from accept to last byte. The API runs on the runtime that started
//! the server, so that a slow query never holds up proxied traffic.
//!
//! | module | decides |
//! |---|---|
//! | [`sockets`], [`listen`], [`connection`] | how connections come in and how serving ends |
//! | [`tls`] | which certificate is shown, and when a handshake is given up |
//! | [`io`] | when a silent or stuck connection is cut |
//! | [`watch`] | when an answer that its client does not take is cut |
//! | [`memory`] | when the process has nearly all the memory it may |
//! | [`pressure`] | when a worker has more to do than it can |
//! | [`screen`] | which requests have no single meaning |
//! | [`forwarded`] | who the client is behind proxies |
//! | [`dispatch`], [`reply`], [`answer`] | where a request goes, and what every answer carries |
//! | [`observe`], [`span`] | what is logged, counted and traced |
//! | [`side`] | what has a small listener of its own |
//! | [`woken`] | how rare news is waited for beside a busy connection |
//!
//! No route and no rule of the product belongs here.

mod answer;
mod body;
pub mod client;
mod connection;
mod crowd;
mod dispatch;
mod fault;
mod forwarded;
mod io;
mod listen;
mod memory;
mod observe;
mod outbox;
mod pressure;
mod reply;
mod screen;
mod side;
mod sockets;
mod span;
mod tls;
mod watch;
mod woken;

pub use self::{
    body::Tracked,
    client::{ClientInfo, RequestId, Scheme},
    dispatch::Ours,
    fault::Fault,
    listen::{Parts, Running, StartError, Stopped, is_free, start},
    observe::Caller,
    side::{Side, start_side},
    tls::{PairError, Tls, check as check_certificate},
};
