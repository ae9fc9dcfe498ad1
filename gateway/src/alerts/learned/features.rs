//! What a measurement looks like beside what its series was, and what the series learns from it.

use super::Tuning;
use super::arithmetic::{ln, moved};
use super::series::{FEATURES, Numbers, Series};
use super::tuning::{
    CORRECTION, ERROR_CLIPS, FAST, HOUR, LEVEL_CLIPS, MOVEMENT, RATE_MAX, RESOLUTION, SCALE, SEASON_SCALE,
    UNITS, WARM_UP,
};

const DAY_MS: u64 = 86_400_000;
/// No feature is larger, and no deviation is learned beyond so many usual ones.
const LARGEST: f32 = 1e9;

/// What was found before anything is learned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) features: [f32; FEATURES],
    /// The error of the prediction.
    error: f32,
    corrections: [f32; 3],
    /// Averages with this measurement in them.
    recent_error: f32,
    mid: f32,
    movement: f32,
    season_level: f32,
    /// Distance to the season.
    residual: f32,
    /// The smallest change that is one.
    tiny: f32,
}

/// How far averages move with a sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) shares: Shares,
    /// At least this share: the first samples are averaged evenly.
    pub(super) first: f32,
    /// The usual interval in milliseconds.
    pub(super) interval: f32,
}

/// How far each average moves, by its rate and the time since the last sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// Usual intervals since the last one.
    pub(super) steps: f32,
    short: f32,
    mid: f32,
    long: f32,
    movement: f32,
    long_movement: f32,
    scale: f32,
    fast: f32,
    season_scale: f32,
}

impl Shares {
    pub(super) fn after(tuning: &Tuning, steps: f32) -> Self {
        Self {
            steps,
            short: share(tuning.short, steps),
            mid: share(tuning.mid, steps),
            long: share(tuning.long, steps),
            movement: share(tuning.short * MOVEMENT.0, steps),
            long_movement: share(tuning.long * MOVEMENT.1, steps),
            scale: share(SCALE, steps),
            fast: share(FAST, steps),
            season_scale: share(SEASON_SCALE, steps),
        }
    }
}

fn share(rate: f32, steps: f32) -> f32 {
    moved((rate.min(RATE_MAX) * steps).min(8.0))
}

impl Pace {
    fn of(&self, share: impl Fn(&Shares) -> f32) -> f32 {
        share(&self.shares).max(self.first)
    }

    /// Of a rate per hour.
    fn hourly(&self, rate: f32) -> f32 {
        share(rate * (self.interval / 3.6e6), self.shares.steps)
    }
}

/// Where a time lies in the day, in UTC: between the middles of two hours, and how far from the first to the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Season {
    hours: [usize; 2],
    shares: [f32; 2],
}

impl Season {
    pub(super) fn at(time_ms: u64) -> Self {
        let since_half_past = (time_ms + DAY_MS - 1_800_000) % DAY_MS;
        let hour = usize::try_from(since_half_past / 3_600_000).unwrap_or_default();
        let within = u32::try_from(since_half_past % 3_600_000).unwrap_or_default();
        let later = within as f32 / 3.6e6;
        Self { hours: [hour, (hour + 1) % 24], shares: [1.0 - later, later] }
    }

    fn offset(&self, hours: &[f32; 24]) -> f32 {
        let parts = self.hours.iter().zip(self.shares);
        parts.map(|(hour, share)| hours.get(*hour).copied().unwrap_or_default() * share).sum()
    }
}

impl Series {
    /// Compares a value, relative to the base, with what the series was.
    pub(super) fn look(&self, tuning: &Tuning, pace: &Pace, season: Option<Season>, x: f32) -> Found {
        let known = &self.numbers;
        let level = known.long + season.map_or(0.0, |season| season.offset(&self.hours));
        let corrections = [known.last - known.fast, known.change, level - known.fast];
        let corrected: f32 = corrections.iter().zip(known.weights).map(|(by, weight)| by * weight).sum();
        let error = x - (known.fast + corrected);
        #[expect(clippy::cast_possible_truncation, reason = "a magnitude")]
        let base = self.base as f32;
        let tiny = RESOLUTION * (base + known.long).abs() + 1e-30;
        let scale = known.scale + tiny;
        let limit = tuning.clip * scale;
        let share = pace.of(|of| of.short);
        let within = error.clamp(-ERROR_CLIPS * limit, ERROR_CLIPS * limit);
        let recent_error = known.recent_error + share * (within - known.recent_error);
        let mid = known.mid + pace.of(|of| of.mid) * (x - known.mid);
        let step = (x - known.last).abs();
        let movement = known.movement + pace.of(|of| of.movement) * (step - known.movement);
        let more = ln((movement + tiny) / (known.long_movement + tiny));
        let residual = x - level;
        let season_level = known.season_level + pace.of(|of| of.mid) * (residual - known.season_level);
        let season_scale = known.season_scale + tiny;
        // A gap lets a series wander.
        let far = pace.shares.steps.max(1.0).sqrt();
        let features = [
            error.abs() / (scale * far),
            recent_error.abs() / scale * (2.0 / share).sqrt(),
            (mid - known.long).abs() / (known.spread + tiny) * UNITS[0],
            more.max(0.0) * UNITS[1],
            (-more).max(0.0) * UNITS[2],
            residual.abs() / season_scale * UNITS[3],
            season_level.abs() / season_scale * UNITS[4],
        ];
        let features = features.map(|feature| feature.min(LARGEST));
        Found { features, error, corrections, recent_error, mid, movement, season_level, residual, tiny }
    }

    /// Takes the value in.
    pub(super) fn learn(
        &mut self,
        tuning: &Tuning,
        pace: &Pace,
        season: Option<Season>,
        x: f32,
        found: &Found,
    ) {
        let known = &mut self.numbers;
        let warm = known.is_warm();
        let most = |usual: f32, value: f32, clips: f32| {
            let limit = tuning.clip * clips * (usual + found.tiny);
            if warm { value.clamp(-limit, limit) } else { value }
        };
        let error = most(known.scale, found.error, 1.0);
        known.correct(error, found);
        let step = (x - known.last).abs();
        let spread = most(known.spread, (x - known.long).abs(), LEVEL_CLIPS);
        let long_step = most(known.long_movement, step, LEVEL_CLIPS);
        let residual = most(known.season_scale, found.residual, 1.0);
        known.scale += pace.of(|of| of.scale) * (error.abs() - known.scale);
        known.fast += pace.of(|of| of.fast) * (x - known.fast);
        known.spread += pace.of(|of| of.long) * (spread - known.spread);
        known.long_movement += pace.of(|of| of.long_movement) * (long_step - known.long_movement);
        known.long += pace.of(|of| of.long) * (x - known.long);
        known.season_scale += pace.of(|of| of.season_scale) * (residual.abs() - known.season_scale);
        known.recent_error = found.recent_error;
        known.mid = found.mid;
        known.movement = found.movement;
        known.season_level = found.season_level;
        known.change = x - known.last;
        known.last = x;
        known.samples = (known.samples + 1.0).min(1e6);
        if let Some(season) = season {
            let moves = pace.hourly(HOUR);
            for (hour, share) in season.hours.into_iter().zip(season.shares) {
                if let Some(hour) = self.hours.get_mut(hour) {
                    *hour += moves * share * residual;
                }
            }
        }
    }
}

impl Numbers {
    /// Learns which corrections would have helped.
    fn correct(&mut self, error: f32, found: &Found) {
        let scale = self.scale + found.tiny;
        let usual = |value: f32| (value / scale).clamp(-LARGEST, LARGEST);
        let corrections = found.corrections.map(usual);
        let size: f32 = corrections.iter().map(|by| by * by).sum();
        let gradient = CORRECTION * usual(error) / (size + 1.0);
        for (weight, by) in self.weights.iter_mut().zip(corrections) {
            *weight = (*weight + gradient * by).clamp(-0.5, 1.0);
        }
    }

    /// Starts the prediction anew after a gap; what is known of levels stays.
    pub(super) fn resume(&mut self, x: f32) {
        self.last = x;
        self.change = 0.0;
        self.fast = x;
        self.recent_error = 0.0;
    }

    pub(super) fn is_warm(&self) -> bool {
        self.samples >= WARM_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_between_the_middles_of_two_hours() {
        let check = |minutes: u64, hours: [usize; 2], later: f32| {
            let season = Season::at(minutes * 60_000);
            assert_eq!(season.hours, hours, "{minutes}");
            assert!((season.shares[1] - later).abs() < 1e-6 && (season.shares[0] + later - 1.0).abs() < 1e-6);
        };
        check(0, [23, 0], 0.5);
        check(30, [0, 1], 0.0);
        check(60, [0, 1], 0.5);
        check(24 * 60 - 31, [22, 23], 59.0 / 60.0);
        check(10 * 24 * 60 + 23 * 60 + 45, [23, 0], 0.25);
    }
}
