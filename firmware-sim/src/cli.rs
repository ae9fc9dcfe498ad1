//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A seeded fleet of MQTT devices that remembers what was acknowledged to it.
#[derive(Debug, Parser)]
#[command(name = "firmware-sim", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What firmware-sim can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish for a while, wait for every acknowledgement, read back what arrived, and judge.
    Run(RunArguments),
}

/// The arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// Where the devices connect: mqtt://HOST:PORT or mqtts://HOST:PORT; several, after commas, if the profile lets
    /// devices keep their sessions themselves
    #[arg(long)]
    pub target: String,
    /// Certificate authority of the target, PEM (default: the system's)
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How many devices
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub devices: u32,
    /// Readings per second of the whole fleet
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// How long to publish, in seconds
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// The seed from which all behaviour follows (default: a random one, printed)
    #[arg(long)]
    pub seed: Option<u64>,
    /// A profile of the fleet, TOML
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Share of devices that publish at QoS 0, in percent
    #[arg(long, value_name = "PERCENT")]
    pub qos0: Option<u8>,
    /// Share of devices that publish at QoS 1, in percent
    #[arg(long, value_name = "PERCENT")]
    pub qos1: Option<u8>,
    /// Share of devices that publish at QoS 2, in percent
    #[arg(long, value_name = "PERCENT")]
    pub qos2: Option<u8>,
    /// Share of devices that speak MQTT 5 instead of 3.1.1, in percent
    #[arg(long, value_name = "PERCENT")]
    pub v5: Option<u8>,
    /// Devices log in as PREFIX followed by their id (default: without a user name)
    #[arg(long, value_name = "PREFIX")]
    pub username_prefix: Option<String>,
    /// The password of all devices, first line of a file
    #[arg(long, value_name = "FILE", requires = "username_prefix")]
    pub password_file: Option<PathBuf>,
    /// Longest wait for outstanding acknowledgements after publishing
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub drain_wait: Duration,
    /// Read the records back and judge them: kafka://HOST:PORT/TOPIC, more topics after commas
    #[arg(long, value_name = "URL")]
    pub readback: Option<String>,
    /// Longest wait without a new record before the read-back ends
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub readback_wait: Duration,
    /// Connection string of the Event Hubs namespace (SASL over TLS), first line of a file
    #[arg(long, value_name = "FILE", requires = "readback")]
    pub readback_connection_string_file: Option<PathBuf>,
    /// Certificate authority for the read-back, PEM (default: the system's)
    #[arg(long, value_name = "FILE", requires = "readback")]
    pub readback_ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub commands: CommandArguments,
    /// Write down which faults of the profile were sent, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// What the run tolerates
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub allow: Vec<Allow>,
    /// How often the gateway is killed meanwhile; only written into the report
    #[arg(long, default_value_t = 0)]
    pub kills: u64,
    /// Process id of a gateway on this machine, to measure its CPU and memory
    #[arg(long, value_name = "PID")]
    pub gateway_pid: Option<u32>,
    /// Write the JSON report to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How to show progress
    #[arg(long, default_value = "plain")]
    pub progress: ProgressStyle,
}

/// Commands to the fleet.
#[derive(Debug, Clone, Args)]
pub struct CommandArguments {
    /// How many commands to send to the fleet while it publishes; they are judged
    #[arg(long, value_name = "N", default_value_t = 0, requires_all = ["command_control", "command_status"])]
    pub commands: u64,
    /// Control API of the cloud-sim that holds the queue, HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub command_control: Option<String>,
    /// The queue
    #[arg(long, value_name = "NAME", default_value = "commands")]
    pub command_entity: String,
    /// Where status events arrive: kafka://HOST:PORT/TOPIC, more topics after commas
    #[arg(long, value_name = "URL")]
    pub command_status: Option<String>,
    /// Longest wait without a settlement once everything is sent
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub command_wait: Duration,
    /// What the sender does wrong on purpose, which the verdict must notice
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub command_fault: Vec<Fault>,
}

/// What the sender of commands may do wrong, each with every tenth command in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// It does not send it: as if it was lost.
    Forgotten,
    /// It sends it under a second id: as if it was repeated.
    Twice,
    /// It sends a later one before it: as if they were out of order.
    Swapped,
}

/// What a run may tolerate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Allow {
    /// The same identity twice: the gateway was killed.
    Duplicated,
    /// Readings under further identities although no reconnect was seen.
    Resent,
    /// Readings without an answer.
    Unacked,
    /// Devices that move on to another partition: the topic grew.
    Moved,
}

/// How progress is shown, on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// A line per second.
    Plain,
    /// A bar on a terminal; lines when stderr is none.
    Bar,
    /// Not at all.
    None,
}

/// Parses `250ms`, `60s`, `2m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 250ms, 60s or 2m");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(duration(text).ok(), expected.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn durations_carry_a_unit() {
        check("250ms", Some(250));
        check("60s", Some(60_000));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("60", None);
        check("s", None);
        check("", None);
        check("-1s", None);
        check("99999999999999999999s", None);
        check("18446744073709551615h", None);
    }

    #[test]
    fn the_command_line_of_the_demo_is_understood() {
        let line = "firmware-sim run --target mqtt://127.0.0.1:1883 --devices 3 --rate 10 --seconds 1 --seed 7 \
            --qos0 10 --qos1 80 --qos2 10 --v5 50 --readback kafka://127.0.0.1:9092/a,b --readback-wait 5s \
            --allow duplicated,resent --report r.json --progress none";
        let Command::Run(run) = Arguments::try_parse_from(line.split_whitespace()).unwrap().command;
        assert_eq!((run.devices, run.seed, run.qos2), (3, Some(7), Some(10)));
        assert_eq!(run.allow, [Allow::Duplicated, Allow::Resent]);
        assert_eq!(run.readback_wait, Duration::from_secs(5));
    }

    #[test]
    fn commands_need_to_know_where_to_go_and_where_their_status_comes() {
        let parse = |line: &str| {
            let words = format!("firmware-sim run --target mqtt://h:1 --commands 5 {line}");
            Arguments::try_parse_from(words.split_whitespace())
        };
        assert!(parse("").is_err() && parse("--command-control h:1").is_err());
        let line = "--command-control h:1 --command-status kafka://h:1/e --command-fault twice,swapped";
        let Command::Run(run) = parse(line).unwrap().command;
        assert_eq!((run.commands.commands, run.commands.command_entity.as_str()), (5, "commands"));
        assert_eq!(run.commands.command_fault, [Fault::Twice, Fault::Swapped]);
    }
}
