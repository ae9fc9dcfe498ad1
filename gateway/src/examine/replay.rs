//! `replay`: sets a consumer back on a stopped directory.

use std::io::Write;

use clap::Args as ClapArgs;
use penstock_proto::{Lane, Seq};

use super::{Directory, Error, parse_lane, parse_seq, text};
use crate::outbox::offline::{Plan, Replay, Target};
use crate::uplink;

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    outbox: Directory,
    /// The consumer to set back, such as `uplink`.
    #[arg(long)]
    consumer: String,
    /// Its lane.
    #[arg(long, value_parser = parse_lane)]
    lane: Lane,
    /// The first position to read again, or `oldest`.
    #[arg(long, value_name = "SEQ|oldest", value_parser = parse_target)]
    to: Target,
    /// Do it; without this, only says what would be sent again.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Error> {
    let replay = Replay::prepare(&args.outbox.directory, &args.consumer, args.lane, args.to)?;
    let plan = replay.plan();
    writeln!(out, "{}", describe(plan))?;
    if plan.first == plan.end {
        return Ok(true);
    }
    if !args.yes {
        out.flush()?;
        return Err(Error::Arguments("nothing was changed; add --yes to do it".to_owned()));
    }
    let forget: &dyn Fn(&[u8], Seq) -> Vec<u8> =
        if args.consumer == uplink::CONSUMER { &uplink::replay_state } else { &|_, _| Vec::new() };
    let plan = replay.run(forget)?;
    writeln!(out, "done: {} goes on at position {} of lane {}", plan.consumer, plan.first, plan.lane)?;
    Ok(true)
}

fn describe(plan: &Plan) -> String {
    let Plan { consumer, lane, first, end, messages, bytes, in_holes } = plan;
    if first == end {
        return format!(
            "{consumer} stands at position {first} of lane {lane} already: nothing is sent again"
        );
    }
    let last = end.0.saturating_sub(1);
    let gone = if *in_holes > 0 { format!(", {in_holes} known to be gone") } else { String::new() };
    format!(
        "{consumer} goes back from position {end} to {first} of lane {lane} and sends {messages} messages again: \
         positions {first} to {last}{gone}, in segments of {}",
        text::bytes(*bytes)
    )
}

fn parse_target(text: &str) -> Result<Target, String> {
    match text {
        "oldest" => Ok(Target::Oldest),
        other => parse_seq(other).map(Target::At).map_err(|_| "expected a position or `oldest`".to_owned()),
    }
}
