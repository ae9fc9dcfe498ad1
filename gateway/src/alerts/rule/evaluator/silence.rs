//! Silence that the numbers know of and that was never told.

use std::sync::Arc;

use super::device::State;
use super::wheel::Timer;
use super::{Evaluator, Subject};

impl Evaluator {
    /// Waits anew for the silence of devices that it takes for silent and `is_told` does not know as such. For an evaluator
    /// that read the log again: what held silence back the first time, and what was not told because of that, is not there.
    pub(crate) fn expect_again(&mut self, is_told: &dyn Fn(&Subject<'_>) -> bool) {
        let due_ms = self.now_ms.saturating_add(1);
        for (place, device) in (0..=u32::MAX).zip(&mut self.devices).filter(|(_, device)| device.silent > 0) {
            let key = Arc::clone(&device.key);
            for whole in &mut device.wholes {
                let State::Deadman { due_ms: due, silent } = &mut whole.state else { continue };
                let subject = Subject { rule: whole.rule, device: &key, metric: None };
                if *silent && !is_told(&subject) {
                    (*due, *silent) = (due_ms, false);
                    device.silent = device.silent.saturating_sub(1);
                    self.wheel.set(Timer { due_ms, device: place, rule: whole.rule });
                }
            }
        }
    }
}
