//! What operations cost when there is much: no operation looks at all links or all messages.

use std::time::Duration;

use super::{Outcome, Rig, message, plain};
use crate::servicebus::config::{Entities, QueueSpec};

const LINKS: usize = 5_000;
const MESSAGES: usize = 100_000;
/// Of processor time. A scan over all links at each operation would take ten times as long, one over all
/// messages a thousand times.
const BUDGET: Duration = Duration::from_secs(5);

/// What this thread has used so far, whatever else the machine does.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn five_thousand_links_and_a_hundred_thousand_messages_stay_cheap() {
    let rig = Rig::new(&Entities::queues([QueueSpec::with_sessions("q"), QueueSpec::new("p")]));
    let client = rig.connect_with(4 * LINKS);
    let started = processor_time();
    let links: Vec<_> = (0..LINKS).map(|number| client.session(&format!("d-{number}"))).collect();
    for link in &links {
        assert_eq!(rig.broker.next(*link), None);
    }
    for number in 0..MESSAGES {
        let session = format!("d-{}", number % LINKS);
        rig.broker.send("q", vec![message(&session, "m")]).unwrap();
        rig.broker.send("p", vec![plain("m")]).unwrap();
    }
    for round in 0..MESSAGES {
        let link = links[round % LINKS];
        let delivery = rig.broker.next(link).unwrap();
        if round < LINKS {
            rig.broker.renew_session("q", &format!("d-{round}"), Some(link)).unwrap();
        }
        rig.broker.settle(link, delivery.lock, &Outcome::Accepted).unwrap();
    }
    let took = processor_time() - started;
    assert_eq!(rig.broker.view("q").unwrap().active, 0);
    println!("{LINKS} links, {MESSAGES} messages in two queues: {took:?}");
    assert!(took < BUDGET, "{took:?}");
}
