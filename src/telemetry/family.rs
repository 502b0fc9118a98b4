//! Owns what a metric is before it counts anything: its description, its labels, its place in the registry.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Error, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::vocabulary::{Item, Kind};

/// All series of one name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its description.
    pub item: Item,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Bounds of a histogram's buckets; empty for other kinds.
    pub bounds: &'static [f64],
}

impl Family {
    /// Something that is counted. The name ends in `_total`.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::of(Item::new(name, Kind::Counter, help))
    }

    /// Something that is measured as it stands.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::of(Item::new(name, Kind::Gauge, help))
    }

    /// How long something takes, in seconds.
    pub const fn seconds(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        let mut family = Self::of(Item::new(name, Kind::Histogram, help).in_unit("s"));
        family.bounds = bounds;
        family
    }

    const fn of(item: Item) -> Self {
        Self {
            item,
            labels: &[],
            bounds: &[],
        }
    }

    /// The same, told apart by these.
    pub const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// The same, in this unit.
    pub const fn in_unit(mut self, unit: &'static str) -> Self {
        self.item = self.item.in_unit(unit);
        self
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.item.name
    }

    fn options(&self) -> Opts {
        Opts::new(self.item.name, self.item.help)
    }

    pub(super) fn int_counter(&self, registry: &Registry) -> Result<IntCounter, Error> {
        entered(registry, IntCounter::with_opts(self.options())?)
    }

    pub(super) fn int_counters(&self, registry: &Registry) -> Result<IntCounterVec, Error> {
        entered(registry, IntCounterVec::new(self.options(), self.labels)?)
    }

    pub(super) fn counters(&self, registry: &Registry) -> Result<CounterVec, Error> {
        entered(registry, CounterVec::new(self.options(), self.labels)?)
    }

    pub(super) fn int_gauge(&self, registry: &Registry) -> Result<IntGauge, Error> {
        entered(registry, IntGauge::with_opts(self.options())?)
    }

    pub(super) fn int_gauges(&self, registry: &Registry) -> Result<IntGaugeVec, Error> {
        entered(registry, IntGaugeVec::new(self.options(), self.labels)?)
    }

    pub(super) fn gauges(&self, registry: &Registry) -> Result<GaugeVec, Error> {
        entered(registry, GaugeVec::new(self.options(), self.labels)?)
    }

    pub(super) fn histogram(&self, registry: &Registry) -> Result<Histogram, Error> {
        let options = HistogramOpts::from(self.options()).buckets(self.bounds.to_vec());
        entered(registry, Histogram::with_opts(options)?)
    }
}

fn entered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
