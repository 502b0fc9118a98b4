//! Owns the life of the process from ready to gone: serve, obey orders and signals, drain.

use std::io;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

use super::authority::CaChoice;
use super::compose::{Tollgate, compose_with};
use super::error::StartError;
use super::reload::Reloader;
use super::settings::Settings;
use crate::admin::api::Order;
use crate::admin::server;
use crate::credential::open::SourceContext;
use crate::listen::{accept, forward};

/// Shorter than the 30 s that a kubelet waits by default.
const GRACE: Duration = Duration::from_secs(25);
/// Longer than a token endpoint may take by default.
const RENEWAL_GRACE: Duration = Duration::from_secs(35);
/// How long abandoned answers are read on at the end.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How long the books may take to be closed: what they have is in their journal by then, or never.
const BOOKS: Duration = Duration::from_secs(5);
/// How long the last spans may take, within `shutdown.grace`, and how long they may at least.
const SPANS: Duration = Duration::from_secs(5);
const LEAST: Duration = Duration::from_secs(1);
/// How often documents are looked at; a change must be in force within 5 s.
const LOOK: Duration = Duration::from_secs(1);

/// Opens everything, unless a signal ends the process first. A renewal that was begun is waited for: by
/// itself a signal would end the process between a token's redeem and its storing.
pub async fn start(
    settings: Settings,
    context: SourceContext,
    ca: CaChoice,
    signals: &mut Signals,
) -> Result<Option<Tollgate>, StartError> {
    let renewals = TaskTracker::new();
    let composed = tokio::select! {
        composed = compose_with(settings, context, ca, renewals.clone()) => Some(composed),
        () = signals.end() => None,
    };
    match composed {
        Some(composed) => composed.map(Some),
        None => {
            finish(&renewals).await;
            Ok(None)
        }
    }
}

/// Serves until a signal or an order ends it, then drains.
pub async fn run(tollgate: Tollgate, signals: Signals) -> io::Result<()> {
    Box::pin(serve(tollgate, signals, std::future::pending())).await
}

/// Serves until `until` ends, then drains. Signals are the caller's business.
pub async fn run_until(tollgate: Tollgate, until: impl Future<Output = ()>) -> io::Result<()> {
    Box::pin(serve(tollgate, Signals::left(), until)).await
}

async fn serve(
    tollgate: Tollgate,
    mut signals: Signals,
    until: impl Future<Output = ()>,
) -> io::Result<()> {
    let Tollgate {
        doors,
        admin,
        listener,
        admin_listener,
        reloader,
        orders,
        drain,
        renewals,
        books,
        ..
    } = tollgate;
    let grace = reloader
        .settings
        .root
        .spec
        .shutdown
        .grace
        .map_or(GRACE, |g| g.0);
    let ledgers = doors.exchange.ledgers.clone();
    let spending = doors.exchange.spending.clone();

    let admin_drain = drain.clone();
    let (admin_stop, stopped) = oneshot::channel::<()>();
    let admin_task = tokio::spawn(server::run(admin_listener, admin, async move {
        // Probes and metrics answer until the last stream has ended.
        stopped.await.ok();
        drop(admin_drain);
    }));
    let accepting = drain.clone();
    tokio::spawn(accept::run(listener, accepting, move |stream, peer| {
        forward::serve(doors.clone(), stream, peer)
    }));

    tokio::select! {
        () = supervise(reloader, orders, signals.reload.take()) => {}
        () = signals.end() => {}
        () = until => {}
    }

    let draining = Instant::now();
    tracing::info!(open = drain.open(), "draining");
    sd_notify::notify(&[NotifyState::Stopping]).ok();
    let cut = tokio::select! {
        cut = drain.finish(grace) => cut,
        () = signals.end() => drain.finish(Duration::ZERO).await,
    };
    if cut > 0 {
        tracing::warn!(cut, "connections were cut at the end of shutdown.grace");
    }
    finish(&renewals).await;
    spending.drained(DRAIN_GRACE).await;
    let sinks = ledgers.sinks().clone();
    let closing = async {
        if timeout(BOOKS, books.close()).await.is_err() {
            tracing::error!("the ledger did not close in time; its journal has what is missing");
        }
        sinks.tap.close();
        // Each of them gives up by itself.
        let logs = tokio::task::spawn_blocking(move || {
            sinks.audit.close();
            sinks.log.flush();
        });
        if logs.await.is_err() {
            tracing::error!("the logs were not closed in good order");
        }
        let left = grace.saturating_sub(draining.elapsed());
        ledgers.traces().close(SPANS.min(left.max(LEAST))).await;
    };
    tokio::select! {
        () = closing => {}
        () = signals.end() => tracing::warn!("ended at once: the last records may be missing"),
    }
    admin_stop.send(()).ok();
    timeout(Duration::from_secs(1), admin_task).await.ok();
    Ok(())
}

/// Lets renewals end: a refresh token that was redeemed is lost unless what came for it is stored.
async fn finish(renewals: &TaskTracker) {
    renewals.close();
    if timeout(RENEWAL_GRACE, renewals.wait()).await.is_err() {
        tracing::error!(
            left = renewals.len(),
            "renewals were cut off; their grants may need a login"
        );
    }
}

/// Reloads when asked or when documents change; returns when it is ordered to end.
async fn supervise(
    mut reloader: Reloader,
    mut orders: mpsc::Receiver<Order>,
    mut hangup: Option<Signal>,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = next(&mut hangup) => {
                // The outcome is logged; nobody waits for it.
                reloader.ledgers.log().reopen();
                reloader.reload().await.ok();
            }
            _ = look.tick() => reloader.reload_if_changed().await,
            order = orders.recv() => match order {
                Some(Order::Reload(answer)) => {
                    let result = reloader.reload().await;
                    // One that gave up waiting finds it in the log.
                    answer.send(result).ok();
                }
                Some(Order::Quit) | None => return,
            },
        }
    }
}

/// The process's signals, as far as they are heeded here.
#[derive(Default)]
pub struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    reload: Option<Signal>,
}

impl Signals {
    /// From now on they no longer end the process by themselves.
    pub fn heeded() -> io::Result<Self> {
        Ok(Self {
            terminate: Some(signal(SignalKind::terminate())?),
            interrupt: Some(signal(SignalKind::interrupt())?),
            reload: Some(signal(SignalKind::hangup())?),
        })
    }

    fn left() -> Self {
        Self::default()
    }

    async fn end(&mut self) {
        tokio::select! {
            () = next(&mut self.terminate) => {}
            () = next(&mut self.interrupt) => {}
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
