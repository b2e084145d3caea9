//! Small statistics over samples: medians, percentiles, ratios of paired rounds.

/// Median, minimum and maximum of a set of samples.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Returns `None` if there is no finite sample.
    pub fn of(samples: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

/// Returns the value below which `share` of the samples are. Sorts the samples.
pub fn percentile(samples: &mut [u64], share: f64) -> Option<u64> {
    samples.sort_unstable();
    let index = (samples.len() as f64 * share).ceil() as usize;
    samples.get(index.saturating_sub(1)).copied()
}

/// Returns the ratios of the rounds that both sides have. A disturbance of a round affects both and mostly cancels out.
pub fn ratios(of: &[(usize, f64)], to: &[(usize, f64)]) -> Vec<f64> {
    let matching = |round: usize| to.iter().find(|(other, _)| *other == round).map(|(_, value)| *value);
    of.iter().filter_map(|(round, value)| Some(value / matching(*round)?)).filter(|ratio| ratio.is_finite()).collect()
}
