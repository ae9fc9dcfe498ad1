//! Against a Service Bus of ours, over AMQP: what it gives up by itself.

use cloud_sim::servicebus::{Entities, QueueSpec};
use serde_json::json;

use super::{Bench, SETTINGS, line, stop};
use crate::commands::amqp::tests::sim::{QUEUE, Sim, accept, receive, soon};
use crate::commands::message::Disposition;

/// A queue that tries twice and keeps what expires.
async fn sim() -> Sim {
    let queue =
        QueueSpec { max_delivery_count: 2, dead_letter_on_expiry: true, ..QueueSpec::with_sessions(QUEUE) };
    Sim::start_with(60.0, |bus| bus.entities = Entities::queues([queue])).await
}

#[tokio::test]
async fn what_expired_and_what_was_tried_too_often_is_told_of() {
    let sim = sim().await;
    let mut bench = Bench::idle();
    bench.watch(sim.namespace(), SETTINGS);
    let messages =
        json!([{ "session_id": "press-7", "message_id": "old", "ttl_seconds": 0.05, "body": "x" }]);
    sim.ask("POST", &format!("/servicebus/entities/{QUEUE}/messages"), &messages).await;
    bench.until("its end", |bench| bench.told().len() == 1).await;
    assert_eq!(bench.told(), [line("old", "expired", "TTLExpiredException")]);

    // One that is dead-lettered later, with a higher number, and one that a gateway refuses.
    sim.send("press-7", "tried").await;
    sim.send("press-7", "refused").await;
    let mut link = accept(&sim.namespace(), "press-7").await.unwrap();
    for _ in 0..2 {
        let tried = receive(&mut link).await.unwrap();
        soon(link.settle(tried.lock, &Disposition::Abandon)).await.unwrap();
    }
    let refused = receive(&mut link).await.unwrap();
    let dead = Disposition::DeadLetter { reason: "penstock-refused".into(), description: "no".into() };
    soon(link.settle(refused.lock, &dead)).await.unwrap();
    link.close().await;
    bench.until("all three", |bench| bench.status().told == 2 && bench.status().own == 1).await;

    // A stop and a start in between, and a cut connection, repeat nothing.
    bench = bench.reopen().await;
    bench.watch(sim.namespace(), SETTINGS);
    sim.fault(json!({ "fault": "cut-connections" })).await;
    let told = |bench: &Bench| bench.handle.status().dead_letters.first().map_or(0, |seen| seen.told);
    bench.until("another look", |bench| told(bench) == 2).await;
    let expected =
        [line("old", "expired", "TTLExpiredException"), line("tried", "failed", "MaxDeliveryCountExceeded")];
    assert_eq!(bench.told(), expected);
    // Nothing was taken, and nothing is locked.
    let dead = sim.dead().await;
    assert_eq!((&dead["active"], &dead["locked"]), (&json!(3), &json!(0)));
    stop(&bench.supervisor).await;
}

#[tokio::test]
async fn an_entity_that_is_not_there_is_said() {
    let sim = Sim::start_with(60.0, |bus| bus.entities = Entities::queues([])).await;
    let bench = Bench::idle();
    bench.watch(sim.namespace(), SETTINGS);
    let error = |bench: &Bench| bench.handle.status().dead_letters.first()?.last_error.clone();
    bench.until("the error", |bench| error(bench).is_some_and(|error| error.contains("not-found"))).await;
    stop(&bench.supervisor).await;
}
