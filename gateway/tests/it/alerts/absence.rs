//! A gateway that is run without `[alerts]` for a while.

use testkit::gateway::Gateway;

use super::{HOT, Site, alert_ids, alerting, outline, plain, publish};
use crate::hub::{self, NOTHING};

#[test]
fn alerts_that_were_open_before_the_section_was_left_out_are_forgotten_without_a_storm() {
    let mut site = Site::start(HOT);
    let hot = r#"{"reading":1,"temperature":95}"#;
    let devices: Vec<String> = (1..=20).map(|number| format!("boiler-{number}")).collect();
    for device in &devices {
        site.publish(device, &[hot]);
    }
    let before = site.told();
    assert_eq!(before.len(), devices.len());
    assert!(devices.iter().all(|device| hub::missing(&site.cloud, device, 1) == NOTHING));
    assert_eq!(site.gateway.stop().expect("it stops").code(), Some(0));

    // Nobody watches.
    let folder = site.folder.path().to_owned();
    site.gateway = Gateway::start(&folder, plain(&site.cloud)).expect("it starts without rules");
    assert!(site.status().is_null(), "{}", site.status());
    for device in &devices {
        publish(&site.gateway, device, &[r#"{"reading":2,"temperature":20}"#]);
    }
    assert!(devices.iter().all(|device| hub::missing(&site.cloud, device, 2) == NOTHING));
    assert_eq!(site.gateway.stop().expect("it stops").code(), Some(0));

    let config = alerting(plain(&site.cloud), &site.cloud, &folder);
    site.gateway = Gateway::start(&folder, config).expect("it starts with rules");
    let after = site.told();
    // What is still in the outbox may be looked at once more, under the ids of then; nothing is told that was not so.
    let known = alert_ids(&before);
    let unknown = after.iter().filter(|event| !known.contains(&alert_ids(std::slice::from_ref(event))[0]));
    assert_eq!(unknown.count(), 0, "{:?}", outline(&after));
    hub::wait_for("nothing open but the marker", || (site.status()["open"] == 1).then_some(()));

    site.publish("boiler-1", &[hot]);
    site.publish("boiler-1", &[r#"{"temperature":20}"#]);
    let events = site.told().split_off(after.len());
    assert_eq!(outline(&events), ["raised hot boiler-1 1", "resolved hot boiler-1 2"]);
    assert!(!known.contains(&alert_ids(&events)[0]), "another episode, another alert");
}
