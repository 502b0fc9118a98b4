//! The exporter before collectors that are well, slow, busy, unwilling or not there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prometheus::Registry;
use prost::Message as _;
use tokio::runtime::Handle;

use super::access_log::Record;
use super::families;
use super::otlp::{Answer, Batches, Coding, Collector, Settings, start};
use super::sampler::{ParentSays, Root, Sampler};
use super::sink_metrics::SinkMetrics;
use super::span_notes::Invocation;
use super::traces::Traces;

/// Answers as it is told, and well after that.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    slow: Option<Duration>,
    tries: AtomicUsize,
    taken: Mutex<Vec<ExportTraceServiceRequest>>,
}

impl Scripted {
    fn saying(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            ..Self::default()
        })
    }

    fn spans(&self) -> usize {
        let taken = self.taken.lock().unwrap();
        let scopes = taken.iter().flat_map(|t| &t.resource_spans);
        scopes
            .flat_map(|r| &r.scope_spans)
            .map(|s| s.spans.len())
            .sum()
    }
}

impl Collector for Scripted {
    fn send(&self, body: Bytes, coding: Coding) -> BoxFuture<'_, Answer> {
        async move {
            self.tries.fetch_add(1, Ordering::SeqCst);
            if let Some(slow) = self.slow {
                tokio::time::sleep(slow).await;
            }
            let told = self.answers.lock().unwrap().pop_front();
            let answer = told.unwrap_or(Answer::Taken { rejected: 0 });
            if matches!(answer, Answer::Taken { .. }) {
                let body = match coding {
                    Coding::Identity => body.to_vec(),
                    Coding::Gzip => {
                        let mut plain = Vec::new();
                        let mut reader = flate2::read::GzDecoder::new(&*body);
                        std::io::Read::read_to_end(&mut reader, &mut plain).unwrap();
                        plain
                    }
                };
                let request = ExportTraceServiceRequest::decode(&*body).unwrap();
                self.taken.lock().unwrap().push(request);
            }
            answer
        }
        .boxed()
    }

    fn name(&self) -> String {
        "scripted:0".to_owned()
    }
}

struct Scene {
    traces: Traces,
    registry: Registry,
}

fn quick() -> Settings {
    Settings {
        sampler: Sampler::default(),
        resource: vec![("service.name".to_owned(), "tollgate".to_owned())],
        coding: Coding::Identity,
        batch: Batches {
            queue: 100,
            most: 10,
            delay: Duration::from_millis(20),
            patience: Duration::from_secs(20),
        },
    }
}

impl Scene {
    fn new(settings: Settings, collector: Arc<dyn Collector>) -> Self {
        let registry = Registry::new();
        let dropped = families::DROPPED.int_counters(&registry).unwrap();
        let metrics = SinkMetrics::new(&registry, dropped).unwrap();
        let search = Arc::new(|_: &[u8]| false);
        let traces = start(settings, collector, search, Handle::current(), metrics).unwrap();
        Self { traces, registry }
    }

    fn exchange(&self) {
        let headers = HeaderMap::new();
        let unnamed = Invocation::Connection {
            boot: 1,
            connection: 1,
            request: 1,
        };
        let position = self.traces.begin(&headers, |_| false).unwrap();
        let notes = position.notes(&headers, unnamed);
        self.traces.record(&Arc::new(Record {
            span: notes,
            ..super::access_log::tests::record("a", 200)
        }));
    }

    /// A counter, by name and by its `reason` if it has one.
    fn count(&self, name: &str, reason: &str) -> u64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .unwrap();
        let mut metrics = family.get_metric().iter();
        let metric = metrics.find(|m| {
            let mut labels = m.get_label().iter();
            reason.is_empty() || labels.any(|l| l.name() == "reason" && l.value() == reason)
        });
        metric.unwrap().get_counter().get_value() as u64
    }

    fn lost(&self, reason: &str) -> u64 {
        self.count("tollgate_telemetry_dropped_total", reason)
    }

    fn sent(&self) -> u64 {
        self.count("tollgate_spans_sent_total", "")
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn later() -> Answer {
    Answer::Later {
        after: None,
        why: "busy".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_fits_arrives_in_batches_and_is_counted() {
    for coding in [Coding::Identity, Coding::Gzip] {
        let collector = Scripted::saying([]);
        let scene = Scene::new(Settings { coding, ..quick() }, collector.clone());
        (0..95).for_each(|_| scene.exchange());
        scene
            .until("all are sent", |scene| scene.sent() == 95)
            .await;
        assert_eq!(collector.spans(), 95);
        let taken = collector.taken.lock().unwrap();
        let sizes = taken
            .iter()
            .map(|t| t.resource_spans[0].scope_spans[0].spans.len());
        assert!(
            sizes.clone().all(|size| size <= 10),
            "{:?}",
            sizes.collect::<Vec<_>>()
        );
        let resource = taken[0].resource_spans[0].resource.as_ref().unwrap();
        assert_eq!(resource.attributes[0].key, "service.name");
        let scope = taken[0].resource_spans[0].scope_spans[0]
            .scope
            .as_ref()
            .unwrap();
        assert_eq!(scope.name, "tollgate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_collector_is_asked_again_and_nothing_is_lost() {
    let wait = Answer::Later {
        after: Some(Duration::from_millis(600)),
        why: "busy".to_owned(),
    };
    let collector = Scripted::saying([later(), wait]);
    let scene = Scene::new(quick(), collector.clone());
    let begun = Instant::now();
    (0..10).for_each(|_| scene.exchange());
    scene
        .until("all are sent", |scene| scene.sent() == 10)
        .await;
    assert!(
        begun.elapsed() >= Duration::from_millis(600),
        "it was given its time"
    );
    assert_eq!(collector.tries.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_refuses_is_counted_and_not_asked_again() {
    let refused = Answer::Refused {
        why: "it answers 400".to_owned(),
    };
    let collector = Scripted::saying([refused, Answer::Taken { rejected: 4 }]);
    let scene = Scene::new(quick(), collector.clone());
    (0..10).for_each(|_| scene.exchange());
    scene
        .until("a batch is lost", |scene| scene.lost("refused") == 10)
        .await;
    (0..10).for_each(|_| scene.exchange());
    scene
        .until("a part is taken", |scene| scene.sent() == 6)
        .await;
    assert_eq!(scene.lost("refused"), 14);
    assert_eq!(collector.tries.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_costs_no_time_and_bounded_memory() {
    let collector = Scripted::saying(std::iter::repeat_n(later(), 1_000));
    let scene = Scene::new(quick(), collector);
    let begun = Instant::now();
    (0..10_000).for_each(|_| scene.exchange());
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits");
    // What waits, and what is on its way.
    assert!(scene.lost("queue_full") >= 10_000 - 100 - 2 * 10);
    assert_eq!(scene.sent(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_given_up_in_time() {
    let collector = Scripted::saying(std::iter::repeat_n(later(), 1_000));
    let mut settings = quick();
    settings.batch.patience = Duration::from_millis(800);
    let scene = Scene::new(settings, collector.clone());
    (0..10).for_each(|_| scene.exchange());
    scene
        .until("it is lost", |scene| scene.lost("unreachable") == 10)
        .await;
    assert!(collector.tries.load(Ordering::SeqCst) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collector_is_cut_off_by_the_time_of_a_batch() {
    let collector = Arc::new(Scripted {
        slow: Some(Duration::from_secs(60)),
        ..Scripted::default()
    });
    let mut settings = quick();
    settings.batch.patience = Duration::from_millis(300);
    let scene = Scene::new(settings, collector);
    (0..10).for_each(|_| scene.exchange());
    scene
        .until("it is lost", |scene| scene.lost("unreachable") == 10)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_at_the_end_at_once() {
    let collector = Scripted::saying([]);
    let mut settings = quick();
    settings.batch.delay = Duration::from_secs(3600);
    settings.batch.most = 1_000;
    let scene = Scene::new(settings, collector.clone());
    (0..25).for_each(|_| scene.exchange());
    let begun = Instant::now();
    scene.traces.close(Duration::from_secs(20)).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(collector.spans(), 25);
    scene.exchange();
    assert_eq!(
        scene.lost("shutdown"),
        1,
        "what comes after the end is counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_does_not_wait_for_a_collector_that_is_down() {
    let collector = Scripted::saying(std::iter::repeat_n(later(), 1_000));
    let scene = Scene::new(quick(), collector);
    (0..10).for_each(|_| scene.exchange());
    let begun = Instant::now();
    scene.traces.close(Duration::from_secs(1)).await;
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_costs_nothing_and_is_not_sent() {
    let sampler = Sampler {
        parent: ParentSays::All,
        root: Root::Never,
    };
    let collector = Scripted::saying([]);
    let scene = Scene::new(Settings { sampler, ..quick() }, collector.clone());
    let headers = HeaderMap::new();
    let unnamed = Invocation::Connection {
        boot: 1,
        connection: 1,
        request: 1,
    };
    let position = scene.traces.begin(&headers, |_| false).unwrap();
    let [parent, _] = position.outgoing();
    assert!(parent.1.to_str().unwrap().ends_with("-00"));
    assert!(position.notes(&headers, unnamed).is_none());
    assert!(Traces::off().begin(&headers, |_| false).is_none());
    scene.traces.close(Duration::from_secs(5)).await;
    assert_eq!(collector.tries.load(Ordering::SeqCst), 0);
}
