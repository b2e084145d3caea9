//! Pipes that compose, through the public interface: one suite for every kind, the kinds themselves, and bridges.

mod atomic;
mod bridge;
mod conformance;
mod datagram;
mod looped;
mod random;
mod stream;
mod tls;
