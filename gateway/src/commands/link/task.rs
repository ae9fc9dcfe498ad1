//! The beginning and the end of a link.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::cloud::{self, Cloud, Session as _};
use super::control::{Control, News, Order, Report, Reports};
use super::fleet::Fleet;
use super::session::Serving;
use super::shared::Shared;
use crate::commands::amqp::{LinkError, Wish};
use crate::commands::dispatch::{Ended, EntityNo, LinkNo, Refusal};
use crate::supervise::clock;

/// How long a receiver waits for any session: Service Bus waits for about a minute itself.
const DISCOVERY_WAIT: Duration = Duration::from_secs(60);

/// Which link it is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) entity: EntityNo,
    /// The entity's name.
    pub(crate) name: Arc<str>,
    pub(crate) link: LinkNo,
    pub(crate) control: Arc<Control>,
}

/// Tells how a link ended, however its task ends.
struct Last<'a> {
    reports: &'a Reports,
    report: Report,
}

/// Accepts the session of `device` and serves it until it is told to close, or the link is lost.
pub(crate) async fn accept<C: Cloud, F: Fleet>(
    shared: Arc<Shared<C, F>>,
    place: Place,
    device: Arc<str>,
) -> Result<(), Infallible> {
    let mut last =
        Last::new(&shared.reports, &place, News::Ended { device: Arc::clone(&device), why: Ended::Failed });
    let started = clock::now();
    let accepted = tokio::select! {
        biased;
        _ = place.control.closed() => {
            last.report.news = News::Ended { device, why: Ended::Closed };
            return Ok(());
        }
        accepted = shared.cloud.accept(&place.name, Wish::Session(&device)) => accepted,
    };
    let session = match accepted {
        Ok(session) => session,
        Err(error) => {
            let refusal = cloud::refusal(&error);
            // Another gateway's session, or one that is about to be free, is nothing to be told of.
            last.report.error = (refusal != Refusal::Locked).then(|| error.to_string());
            last.report.news = News::Refused { device, refusal };
            return Ok(());
        }
    };
    shared.metrics.accept_time.record(clock::now().saturating_duration_since(started));
    last.tell(News::Accepted { device: Arc::clone(&device) });
    let end = serve(&shared, &place, &device, session).await;
    last.ended(device, end, place.control.order());
    Ok(())
}

/// Waits for any session with messages, holds it until it is told what becomes of it, and serves it if it is to.
pub(crate) async fn discover<C: Cloud, F: Fleet>(
    shared: Arc<Shared<C, F>>,
    place: Place,
) -> Result<(), Infallible> {
    let mut last = Last::new(&shared.reports, &place, News::FoundNone { refusal: Some(Refusal::Other) });
    let accepted = tokio::select! {
        biased;
        _ = place.control.closed() => {
            last.report.news = News::FoundNone { refusal: None };
            return Ok(());
        }
        accepted = shared.cloud.accept(&place.name, Wish::Next { wait: DISCOVERY_WAIT }) => accepted,
    };
    let session = match accepted {
        Ok(session) => session,
        Err(LinkError::TimedOut(_)) => {
            last.report.news = News::FoundNone { refusal: None };
            return Ok(());
        }
        Err(error) => {
            last.report.news = News::FoundNone { refusal: Some(cloud::refusal(&error)) };
            last.report.error = Some(error.to_string());
            return Ok(());
        }
    };
    let device: Arc<str> = session.session().into();
    last.report.news = News::Ended { device: Arc::clone(&device), why: Ended::Failed };
    last.tell(News::Found { session: Arc::clone(&device) });
    let end = serve(&shared, &place, &device, session).await;
    last.ended(device, end, place.control.order());
    Ok(())
}

/// Serves a session until its link is told to close (`Ok`), or is lost, and gives it back.
async fn serve<C: Cloud, F: Fleet>(
    shared: &Shared<C, F>,
    place: &Place,
    device: &Arc<str>,
    session: C::Session,
) -> Result<(), LinkError> {
    let mut serving = Serving::new(shared, place, device, session);
    let end = serving.run().await;
    Box::pin(serving.close()).await;
    end
}

// === impl Last ===

impl<'a> Last<'a> {
    fn new(reports: &'a Reports, place: &Place, news: News) -> Self {
        let report = Report { link: place.link, entity: place.entity, news, error: None };
        Self { reports, report }
    }

    /// Tells something before the end.
    fn tell(&self, news: News) {
        let Report { link, entity, .. } = self.report;
        self.reports.push(Report { link, entity, news, error: None });
    }

    fn ended(&mut self, device: Arc<str>, end: Result<(), LinkError>, order: Order) {
        let why = match &end {
            Ok(()) if order >= Order::Finish => Ended::Closed,
            // Its device went, or another task has its seat: whether to come back is decided elsewhere.
            Ok(()) => Ended::Failed,
            Err(error) => cloud::ended(error),
        };
        self.report.news = News::Ended { device, why };
        self.report.error = end.err().map(|error| error.to_string());
    }
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.reports.push(self.report.clone());
    }
}
