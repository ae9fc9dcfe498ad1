//! Real-time priority for a thread, as the gateway asks for its committer.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// Asks for SCHED_FIFO 1 for this thread; whether it was allowed.
pub fn ask() -> bool {
    ThreadPriority::try_from(1).is_ok_and(|priority| {
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
        set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
    })
}
