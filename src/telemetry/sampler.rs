//! Owns which exchanges become spans: the samplers of the OpenTelemetry specification.

use super::trace_context::{Parent, Recorded, TraceId};

/// Decides, once, when an exchange begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// What an agent's own decision counts.
    pub parent: ParentSays,
    /// What is recorded where no agent decided.
    pub root: Root,
}

/// What the `sampled` flag of an agent's `traceparent` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentSays {
    /// It decides.
    All,
    /// Nothing.
    Nothing,
}

/// What is recorded where no agent decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// Everything.
    Always,
    /// Nothing.
    Never,
    /// This part, from 0 to 1, chosen by the trace: who shares a trace chooses alike.
    Ratio(f64),
}

impl Default for Sampler {
    /// `parentbased_always_on`.
    fn default() -> Self {
        Self {
            parent: ParentSays::All,
            root: Root::Always,
        }
    }
}

impl Sampler {
    /// Whether this trace is recorded.
    pub fn decide(&self, parent: Option<&Parent>, trace: TraceId) -> Recorded {
        if let (ParentSays::All, Some(parent)) = (self.parent, parent) {
            return parent.recorded;
        }
        let chosen = match self.root {
            Root::Always => true,
            Root::Never => false,
            Root::Ratio(ratio) if ratio >= 1.0 => true,
            // The SDKs' own rule: the last 63 bits of the trace's second half, against the ratio of 2^63.
            Root::Ratio(ratio) => {
                let half = u128::from_be_bytes(trace.0) as u64 >> 1;
                half < (ratio.max(0.0) * (1_u64 << 63) as f64) as u64
            }
        };
        if chosen { Recorded::Yes } else { Recorded::No }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace_context::{Ids, SpanId};
    use super::*;

    fn parent(recorded: Recorded) -> Parent {
        Parent {
            trace: TraceId([1; 16]),
            span: SpanId([2; 8]),
            recorded,
        }
    }

    #[test]
    fn an_agents_decision_is_followed_where_it_counts() {
        use ParentSays::{All, Nothing};
        use Recorded::{No, Yes};
        for (says, root, sent, decided) in [
            (All, Root::Always, Some(Yes), Yes),
            (All, Root::Always, Some(No), No),
            (All, Root::Always, None, Yes),
            (All, Root::Never, Some(Yes), Yes),
            (All, Root::Never, None, No),
            (Nothing, Root::Always, Some(No), Yes),
            (Nothing, Root::Never, Some(Yes), No),
            (Nothing, Root::Ratio(1.0), Some(No), Yes),
            (Nothing, Root::Ratio(0.0), Some(Yes), No),
        ] {
            let sampler = Sampler { parent: says, root };
            let sent = sent.map(parent);
            let got = sampler.decide(sent.as_ref(), TraceId([1; 16]));
            assert_eq!(got, decided, "{sampler:?} {sent:?}");
        }
    }

    #[test]
    fn a_ratio_takes_about_its_part_and_the_same_traces_everywhere() {
        let ids = Ids::default();
        let quarter = Sampler {
            parent: ParentSays::All,
            root: Root::Ratio(0.25),
        };
        let traces: Vec<TraceId> = (0..20_000).map(|_| ids.trace()).collect();
        let taken = |sampler: &Sampler| {
            let chosen = traces
                .iter()
                .filter(|t| sampler.decide(None, **t) == Recorded::Yes);
            chosen.count()
        };
        assert!((4_500..5_500).contains(&taken(&quarter)));
        let mut low = [0xff; 16];
        low[8..].copy_from_slice(&(1_u64 << 62).wrapping_sub(1).to_be_bytes());
        assert_eq!(quarter.decide(None, TraceId(low)), Recorded::Yes);
        low[8..].copy_from_slice(&(1_u64 << 62).to_be_bytes());
        assert_eq!(quarter.decide(None, TraceId(low)), Recorded::No);
    }
}
