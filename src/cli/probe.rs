//! Owns `tollgate wait-ready` and `tollgate healthcheck`: questions to a running proxy's probes.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::args::{HealthArgs, WaitArgs};
use super::context::{Context, block_on};
use super::output::Exit;
use crate::admin::client::AdminClient;
use crate::app::error::StartError;

/// Waits until the proxy is ready; 75 when it is not in time.
pub fn wait_ready(context: &Context, args: &WaitArgs) -> Result<Exit, StartError> {
    let client = client(context);
    let started = Instant::now();
    block_on(async {
        loop {
            let last = match client.call(Method::GET, "/readyz").await {
                Ok((StatusCode::OK, _)) => {
                    context.printer.note(&format!(
                        "ready after {:.1}s",
                        started.elapsed().as_secs_f64()
                    ));
                    return Exit::Ok;
                }
                Ok((_, body)) => blocked(&body),
                Err(error) => error.to_string(),
            };
            if started.elapsed() >= args.timeout {
                let help = "see its log; `tollgate creds list` and `tollgate check` tell more";
                return context.printer.problem(
                    &format!("not ready after {:?}: {last}", args.timeout),
                    help,
                    Exit::Temporary,
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

/// One question; exit code 0 or 1.
pub fn healthcheck(context: &Context, args: &HealthArgs) -> Result<Exit, StartError> {
    let client = client(context);
    let path = if args.ready { "/readyz" } else { "/livez" };
    block_on(async {
        match client.call(Method::GET, path).await {
            Ok((StatusCode::OK, _)) => Exit::Ok,
            Ok((_, body)) => {
                context
                    .printer
                    .problem(&format!("not ready: {}", blocked(&body)), "", Exit::No)
            }
            Err(error) => context.printer.problem(
                &error.to_string(),
                "is `tollgate serve` running?",
                Exit::No,
            ),
        }
    })
}

/// Probes work without a configuration: images that only probe have none.
fn client(context: &Context) -> AdminClient {
    let settings = match context.global.admin {
        Some(_) => None,
        None => context.settings().ok(),
    };
    AdminClient {
        address: context.admin_address(settings.as_ref()),
        token: None,
    }
}

fn blocked(body: &[u8]) -> String {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match answer["blocked"].as_object() {
        Some(parts) => parts
            .iter()
            .map(|(part, why)| format!("{part}: {}", why.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join("; "),
        None => "it did not say why".to_owned(),
    }
}
