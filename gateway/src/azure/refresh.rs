//! The task that keeps a service's token fresh.

use std::convert::Infallible;
use std::time::Duration;

use super::handle::TokenHandle;
use super::metrics::Metrics;
use super::schedule::Schedule;
use super::source::{Endpoint, TokenSource};
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind, chain, clock};

/// Fetches tokens for `tokens` from `source` until the gateway stops, the first one at once.
pub fn start(source: &TokenSource, tokens: &TokenHandle, supervisor: &Supervisor) {
    let refresh = Refresh {
        endpoint: Endpoint::new(source.clone()),
        tokens: tokens.clone(),
        schedule: Schedule::default(),
        metrics: Metrics::new(),
    };
    supervisor.spawn(TaskKind::Tokens, refresh.run(supervisor.shutdown()));
}

struct Refresh {
    endpoint: Endpoint,
    tokens: TokenHandle,
    schedule: Schedule,
    metrics: Metrics,
}

impl Refresh {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), Infallible> {
        let stopped = shutdown.reached(Phase::Close);
        tokio::pin!(stopped);
        loop {
            let pause = tokio::select! {
                pause = self.fetch() => pause,
                () = stopped.as_mut() => return Ok(()),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.tokens.wanted() => tracing::info!("the service refused the token; fetching another one"),
                () = stopped.as_mut() => return Ok(()),
            }
        }
    }

    /// Asks once and returns the pause until the next time.
    async fn fetch(&mut self) -> Duration {
        let audience = self.tokens.audience();
        match self.endpoint.fetch(audience).await {
            Ok(token) => {
                let now = clock::now();
                let life = token.life(now);
                let pause = self.schedule.fetched(life, rand::random());
                let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
                self.metrics.fetched(clock::unix_ms().saturating_add(life_ms));
                let before = self.tokens.status().failures;
                self.tokens.store(token, now);
                let (life, again) = (life.as_secs(), pause.as_secs());
                if before > 0 {
                    tracing::info!(
                        audience = audience.host(),
                        life,
                        again,
                        failures = before,
                        "tokens come again"
                    );
                } else {
                    tracing::debug!(audience = audience.host(), life, again, "fetched a token");
                }
                pause
            }
            Err(error) => {
                let pause = self.schedule.failed(error.retry_after(), rand::random());
                self.metrics.failed(&error);
                let reason = chain(&error);
                let (host, life) = (audience.host(), self.tokens.status().life);
                let (again, life) = (pause.as_secs(), life.unwrap_or_default().as_secs());
                tracing::warn!(audience = host, error = reason, again, life, "no token came; trying again");
                self.tokens.fail(reason);
                pause
            }
        }
    }
}
