//! Alerts that are open when the gateway dies.

use super::{HOT, Site, alert_ids, outline};
use crate::hub;

/// When it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// As soon as the reading is acknowledged; the alert may not even be raised.
    Acknowledged,
    /// When the alert was told.
    Told,
    /// When a snapshot was taken with the alert in it.
    Snapshot,
}

fn check(moment: Moment) {
    let settings =
        if moment == Moment::Snapshot { &[("alerts", "snapshot_every = \"1s\"")][..] } else { &[] };
    let mut site = Site::start_with(HOT, settings);
    site.publish("boiler-7", &[r#"{"temperature":80}"#, r#"{"temperature":95}"#]);
    if moment != Moment::Acknowledged {
        assert_eq!(outline(&site.told()), ["raised hot boiler-7 1"]);
    }
    if moment == Moment::Snapshot {
        hub::wait_for("a snapshot", || {
            let metrics = site.gateway.health("/metrics").ok()??;
            let taken =
                metrics.lines().find_map(|line| line.strip_prefix("penstock_alerts_snapshots_total "));
            (taken?.parse::<u32>().ok()? > 0).then_some(())
        });
    }
    site.gateway.kill().expect("killed");
    site.gateway.restart().expect("it starts again");
    // The condition still holds: there is nothing to tell.
    site.publish("boiler-7", &[r#"{"temperature":96}"#]);
    let raised = site.told();
    assert_eq!(outline(&raised), ["raised hot boiler-7 1"], "{moment:?}");
    assert_eq!(raised[0]["data"]["observed"]["value"], 95.0, "{moment:?}: what raised it first");
    site.publish("boiler-7", &[r#"{"temperature":80}"#]);
    let events = site.told();
    assert_eq!(outline(&events), ["raised hot boiler-7 1", "resolved hot boiler-7 2"], "{moment:?}");
    let ids = alert_ids(&events);
    assert_eq!(ids[0], ids[1], "{moment:?}");
    hub::wait_for("the end of all but the markers", || {
        let open = site.status()["open"].as_u64()?;
        (open == u64::from(site.markers.get())).then_some(())
    });
}

#[test]
fn an_alert_of_an_acknowledged_reading_comes_although_the_gateway_is_killed_at_once() {
    check(Moment::Acknowledged);
}

#[test]
fn an_open_alert_is_not_raised_again_by_a_gateway_that_was_killed() {
    check(Moment::Told);
}

#[test]
fn an_open_alert_is_not_raised_again_where_the_rules_start_from_a_snapshot() {
    check(Moment::Snapshot);
}

#[test]
fn an_end_that_nobody_was_there_to_see_is_told_by_the_next_reading() {
    let mut site = Site::start(HOT);
    site.publish("boiler-7", &[r#"{"temperature":95}"#]);
    site.told();
    assert_eq!(site.gateway.stop().expect("it stops").code(), Some(0));
    site.gateway.restart().expect("it starts again");
    let standing = |site: &Site| site.status()["open"].clone();
    hub::wait_for("what was open", || (standing(&site) == 2).then_some(()));
    site.publish("boiler-7", &[r#"{"temperature":20}"#]);
    assert_eq!(outline(&site.told()), ["raised hot boiler-7 1", "resolved hot boiler-7 2"]);
}
