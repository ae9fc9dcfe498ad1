//! What the disk says about alerts; see [`crate::fuzzing`].

use std::sync::Arc;

use super::row::{self, Names, Row, RowKey};
use super::{Effects, Lifecycle, Policy, Rulebook, Voice};
use crate::fuzzing::Decoder;

/// The decoders of this folder.
pub(crate) const DECODERS: &[Decoder] = &[Decoder { name: "alert_row", decode: alert_row, weight: 12 }];

/// The length of a key, the key, the value. What was read is written and read as the same, and a lifecycle that begins
/// with it goes on.
fn alert_row(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(*length)) else { return };
    let mut names = Names::default();
    let known = RowKey::decode(key);
    let row = known.and_then(|key| Row::decode(key, value, &mut names));
    if let (Some(known), Some(row)) = (known, &row) {
        assert_eq!(known.encode(), key);
        let mut again = Vec::new();
        match row {
            Row::Alert(alert) => row::put_alert(&mut again, alert),
            Row::Past(times) => row::put_past(&mut again, times),
            Row::Group(group) => row::put_group(&mut again, group),
            Row::Tenant(tenant, bucket) => row::put_tenant(&mut again, tenant.as_deref(), *bucket),
            Row::Gateway(gateway) => row::put_gateway(&mut again, gateway),
        }
        assert_eq!(Row::decode(known, &again, &mut names).as_ref(), Some(row));
    }
    let policy = Policy::read(None, &[], "").expect("defaults");
    let voice = Voice {
        gateway: "site-7".into(),
        source: "/gateways/site-7".into(),
        type_prefix: "io.penstock".into(),
    };
    let mut lifecycle = Lifecycle::new(voice, Arc::new(policy), Arc::new(Rulebook::default()));
    assert_eq!(lifecycle.load(key, value).is_ok(), row.is_some());
    let mut out = Effects::default();
    for _ in 0..8 {
        let Some(due) = lifecycle.next_due_ms() else { break };
        lifecycle.advance(due.max(1_790_000_000_000), &mut out);
        lifecycle.flush(&mut out);
    }
    assert!(out.entries.count() <= 8 && out.table.len() <= 64);
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    if name == "alert_row" { super::tests::row_seeds() } else { Vec::new() }
}
