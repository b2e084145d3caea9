//! The status as JSON, and the metrics as text.

use seaprox_proxies::embedded;

use crate::error::Error;
use crate::handle::{RawLoop, with};
use crate::memory::{Buffer, Out};

export! {
    fn seaprox_status_json(raw: RawLoop, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with(raw, |record, core| {
            Ok(embedded::status_json(core, &record.workers.done(), record.since.elapsed(), RECORDS_MAX))
        })?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_metrics_text(raw: RawLoop, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with(raw, |_, core| embedded::metrics_text(core).map_err(|error| Error::invalid(error.to_string())))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }
}

/// The most connections in a status, and the most flows.
const RECORDS_MAX: usize = 10_000;
