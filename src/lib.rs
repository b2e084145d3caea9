//! seaprox
