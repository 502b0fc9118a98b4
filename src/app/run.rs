//! Owns the life of the process from ready to gone: serve, obey orders and signals, drain.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::compose::Tollgate;
use super::reload::{Reloader, watch};
use crate::admin::api::Order;
use crate::admin::server;
use crate::listen::{accept, forward};

/// Shorter than the 30 s that a kubelet waits by default.
const GRACE: Duration = Duration::from_secs(25);
/// Editors and mounts change a file in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Serves until a signal, an order or `until` ends it, then drains.
pub async fn run(tollgate: Tollgate, until: impl Future<Output = ()>) -> io::Result<()> {
    let Tollgate {
        doors,
        admin,
        listener,
        admin_listener,
        reloader,
        orders,
        drain,
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

    let admin_drain = drain.clone();
    let (admin_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let admin_task = tokio::spawn(server::run(admin_listener, admin, async move {
        // Probes and metrics answer until the last stream has ended.
        stopped.await.ok();
        drop(admin_drain);
    }));
    let accepting = drain.clone();
    tokio::spawn(accept::run(listener, accepting, move |stream, peer| {
        forward::serve(doors.clone(), stream, peer)
    }));

    let mut signals = Signals::new()?;
    supervise(reloader, orders, &mut signals, until).await;

    tracing::info!(open = drain.open(), "draining");
    let cut = tokio::select! {
        cut = drain.finish(grace) => cut,
        () = signals.end() => drain.finish(Duration::ZERO).await,
    };
    if cut > 0 {
        tracing::warn!(cut, "connections were cut at the end of shutdown.grace");
    }
    ledgers.log().flush();
    admin_stop.send(()).ok();
    tokio::time::timeout(Duration::from_secs(1), admin_task)
        .await
        .ok();
    Ok(())
}

/// Reloads when asked or when files change; returns when the process is to end.
async fn supervise(
    mut reloader: Reloader,
    mut orders: mpsc::Receiver<Order>,
    signals: &mut Signals,
    until: impl Future<Output = ()>,
) {
    let mut until = std::pin::pin!(until);
    let mut changes = watch(&reloader.watched());
    let mut texts = reloader.texts();
    loop {
        tokio::select! {
            () = &mut until => return,
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.reload.recv() => {
                // The outcome is logged; nobody waits for it.
                reloader.reload().await.ok();
                texts = reloader.texts();
            }
            Some(()) = changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                let now = reloader.texts();
                if now != texts {
                    texts = now;
                    reloader.reload().await.ok();
                }
            }
            order = orders.recv() => match order {
                Some(Order::Reload(answer)) => {
                    let result = reloader.reload().await;
                    texts = reloader.texts();
                    answer.send(result).ok();
                }
                Some(Order::Quit) | None => return,
            },
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
