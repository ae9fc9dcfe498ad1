//! The commands of daily work.
//!
//! ```text
//! cargo xtask demo     everything on one machine: cloud stand-in, gateway, fleet, verdict
//! cargo xtask test     every test of the workspace
//! cargo xtask ci       what has to pass before a change goes in
//! cargo xtask bench    the comparisons behind docs/performance.md
//! cargo xtask proto    the Rust types of the schema files, generated or compared
//! cargo xtask drill    power cuts, crashes, full disks, outages under load: nothing acknowledged may be lost
//! cargo xtask fuzz     random bytes for every decoder of bytes that nobody vouches for
//! cargo xtask kafka    a real Apache Kafka, to try things on or to test the uplink against
//! cargo xtask serve-test     a gateway that allows everything, for clients and suites we did not write
//! cargo xtask conformance    the interoperability tests of Eclipse paho.mqtt.testing
//! ```
//!
//! Every command uses one build: `--release --workspace --all-targets`. Another profile, selection or set of
//! flags would compile RocksDB's C++ again, so [`cargo::Cargo`] counts those compilations and `ci` fails on a
//! second one. Nothing here needs a C dependency: this crate is what checks for the compiler.

mod bench;
mod cargo;
mod ci;
mod conformance;
mod demo;
mod dependencies;
mod drill;
mod fuzz;
mod kafka;
mod node;
mod packages;
mod proto;
mod python;
mod say;
mod serve_test;
mod signals;
mod spdx;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The commands of daily work", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the cloud stand-in, the gateway and a fleet on this machine, and judge what arrived
    Demo(demo::Arguments),
    /// Run every test of the workspace
    Test,
    /// Run what has to pass before a change goes in: format, lints, tests, documents, dependencies, demos
    Ci,
    /// Run a benchmark and print its table
    Bench(bench::Arguments),
    /// Generate the Rust types of the schema files in proto/penstock
    Proto(proto::Arguments),
    /// Cut the power, crash the gateway, fill its disk or take its cloud away under load, and judge what arrives
    Drill(Box<drill::Arguments>),
    /// Give random bytes to every decoder of bytes that nobody vouches for
    Fuzz(fuzz::Arguments),
    /// Start a real Apache Kafka, or test the uplink against one
    Kafka(kafka::Arguments),
    /// Start a gateway that allows everything, for clients and suites we did not write, until Ctrl-C
    ServeTest(serve_test::Arguments),
    /// Run the interoperability tests of Eclipse paho.mqtt.testing against the gateway or another broker
    Conformance(conformance::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = signals::install() {
        say::failure(&format!("{error:#}"));
        return ExitCode::FAILURE;
    }
    let outcome = match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test => test::run(),
        Command::Ci => ci::run(),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Proto(arguments) => proto::run(&arguments),
        Command::Drill(arguments) => drill::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Kafka(arguments) => kafka::run(&arguments),
        Command::ServeTest(arguments) => serve_test::run(arguments),
        Command::Conformance(arguments) => conformance::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn demo_has_the_documented_defaults() {
        let Command::Demo(demo) = parse("xtask demo").unwrap().command else { panic!("not a demo") };
        assert_eq!((demo.devices, demo.rate, demo.seconds, demo.kill_gateway), (1000, 10_000, 30, 0));
        assert_eq!(demo.commands, 1000);
    }

    #[test]
    fn demo_takes_kills_and_a_seed() {
        let line =
            "xtask demo --devices 200 --rate 500 --seconds 8 --kill-gateway 2 --seed 7 --report r.json";
        let Command::Demo(demo) = parse(line).unwrap().command else { panic!("not a demo") };
        assert_eq!((demo.devices, demo.rate, demo.seconds, demo.kill_gateway), (200, 500, 8, 2));
        assert_eq!(demo.seed, Some(7));
    }

    #[test]
    fn a_demo_of_nothing_is_refused() {
        for line in ["xtask demo --devices 0", "xtask demo --rate 0", "xtask demo --seconds 0"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_drill_has_two_hundred_episodes_unless_told_otherwise() {
        let drill = |line: &str| match parse(line).unwrap().command {
            Command::Drill(drill) => (drill.kind, drill.episodes, drill.seed),
            _ => panic!("not a drill"),
        };
        assert_eq!(drill("xtask drill power-cut"), (drill::Kind::PowerCut, 200, None));
        assert_eq!(drill("xtask drill crash --episodes 3 --seed 5"), (drill::Kind::Crash, 3, Some(5)));
        assert_eq!(drill("xtask drill disk-full --seed 6").2, Some(6));
        assert!(parse("xtask drill").is_err() && parse("xtask drill crash --episodes 0").is_err());
    }

    #[test]
    fn an_outage_lasts_two_minutes_with_the_stand_in_unless_told_otherwise() {
        let outage = |line: &str| match parse(line).unwrap().command {
            Command::Drill(drill) => (drill.scale.minutes, drill.outage),
            _ => panic!("not a drill"),
        };
        let (minutes, plain) = outage("xtask drill outage");
        assert_eq!((minutes, plain.broker), (None, drill::outage::BrokerKind::Sim));
        assert_eq!((plain.devices, plain.rate, drill::outage::Options::MINUTES), (60, 1500, 2));
        let line = "xtask drill outage --minutes 9 --broker kafka --format packed --catch-up live-first --no-tail-read";
        let (minutes, other) = outage(line);
        assert_eq!((minutes, other.broker), (Some(9), drill::outage::BrokerKind::Kafka));
        assert!(other.no_tail_read && other.format == drill::outage::Format::Packed);
        assert!(other.catch_up == drill::outage::CatchUp::LiveFirst);
    }

    #[test]
    fn a_reconnect_drill_takes_a_share_and_kills() {
        let reconnect = |line: &str| match parse(line).unwrap().command {
            Command::Drill(drill) => (drill.scale.devices, drill.reconnect.share, drill.reconnect.kill),
            _ => panic!("not a drill"),
        };
        assert_eq!(reconnect("xtask drill reconnect"), (None, 10, 0));
        let line = "xtask drill reconnect --devices 500 --share 25% --minutes 1 --seed 3 --kill 2";
        assert_eq!(reconnect(line), (Some(500), 25, 2));
        assert!(parse("xtask drill reconnect --share 101%").is_err());
    }

    #[test]
    fn a_drill_of_commands_has_the_documented_defaults() {
        let commands = |line: &str| match parse(line).unwrap().command {
            Command::Drill(drill) => (drill.kind, drill.scale.devices, drill.commands.commands, drill.seed),
            _ => panic!("not a drill"),
        };
        assert_eq!(commands("xtask drill commands"), (drill::Kind::Commands, None, 20_000, None));
        let line = "xtask drill commands --devices 100 --commands 500 --seed 3";
        assert_eq!(commands(line), (drill::Kind::Commands, Some(100), 500, Some(3)));
        assert!(parse("xtask drill commands --commands 0").is_err());
    }

    #[test]
    fn a_drill_of_alerts_has_parts_and_the_documented_defaults() {
        let alerts = |line: &str| match parse(line).unwrap().command {
            Command::Drill(drill) => drill.alerts,
            _ => panic!("not a drill"),
        };
        let all = alerts("xtask drill alerts");
        assert_eq!((all.part, all.kills, all.storm_devices), (None, 50, 10_000));
        assert_eq!(
            (all.hours, all.scale, all.rounds, all.away_seconds, all.away_share),
            (24, 1440, 4, 6, 95)
        );
        let storm = alerts("xtask drill alerts --part storm --storm-devices 1000 --seed 3");
        assert_eq!((storm.part, storm.storm_devices), (Some(drill::AlertsPart::Storm), 1000));
        assert!(parse("xtask drill alerts --part rain").is_err());
    }

    #[test]
    fn fuzzing_has_the_documented_defaults() {
        let fuzz = |line: &str| match parse(line).unwrap().command {
            Command::Fuzz(fuzz) => (fuzz.cases, fuzz.seed, fuzz.replay.is_some()),
            _ => panic!("not fuzz"),
        };
        assert_eq!(fuzz("xtask fuzz"), (10_000_000, None, false));
        assert_eq!(fuzz("xtask fuzz --cases 5 --seed 6 --replay x.case"), (5, Some(6), true));
        assert!(parse("xtask fuzz --cases 0").is_err());
    }

    #[test]
    fn kafka_is_only_started_unless_told_otherwise() {
        let Command::Kafka(kafka) = parse("xtask kafka --topic t:2").unwrap().command else {
            panic!("not kafka")
        };
        assert_eq!((kafka.what, kafka.topics), (kafka::What::Up, vec![("t".to_owned(), 2)]));
    }

    #[test]
    fn conformance_wants_the_suites_and_takes_another_broker() {
        let line = "xtask conformance --paho /suites --only test_basic --against localhost:1883";
        let Command::Conformance(suites) = parse(line).unwrap().command else { panic!("no conformance") };
        assert_eq!((suites.paho.to_str(), suites.only.as_deref()), (Some("/suites"), Some("test_basic")));
        assert_eq!(suites.against.map(|address| address.to_string()).as_deref(), Some("localhost:1883"));
        assert!(parse("xtask conformance --paho /suites --against localhost").is_err());
    }

    #[test]
    fn a_test_server_takes_ports() {
        let line = "xtask serve-test --port 1883 --tls-port 8883";
        let Command::ServeTest(server) = parse(line).unwrap().command else { panic!("no server") };
        assert_eq!((server.port, server.tls_port, server.websocket_port), (1883, 8883, 0));
    }

    #[test]
    fn bench_options_reach_the_benchmark() {
        let line = "xtask bench ingest --seconds 3 --rounds 5 --cells 50x16,1000x16";
        let Command::Bench(bench) = parse(line).unwrap().command else { panic!("not a bench") };
        assert_eq!(bench.name, bench::Name::Ingest);
        assert_eq!(bench.options, ["--seconds", "3", "--rounds", "5", "--cells", "50x16,1000x16"]);
    }
}
