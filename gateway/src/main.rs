//! The command line.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use penstock::alerts::rules_cli;
use penstock::config::{ConfigError, Settings};
use penstock::{app, examine, mqtt, observe, supervise, tls, verify};

/// Ended because it was asked to.
const ASKED: u8 = 0;
/// Failed while running.
const FAILED: u8 = 1;
/// The configuration or the arguments are wrong.
const MISCONFIGURED: u8 = 2;

/// An IoT edge gateway that never loses an acknowledged message.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway until it is told to stop (SIGTERM or SIGINT).
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Checks a configuration and prints every setting in force.
    CheckConfig {
        /// The configuration file.
        config: PathBuf,
    },
    /// Reads a password from standard input and prints its hash for the users file.
    HashPassword,
    /// Reads topics from the beginning and proves that nothing in them is missing or out of order.
    Verify(verify::Args),
    /// Looks into an outbox directory, also while a gateway uses it.
    Outbox(examine::Args),
    /// Lists and exports what Event Hubs refused, sends it again or lets it go.
    DeadLetter(examine::DeadLetterArgs),
    /// Checks a file of alert rules, or runs tests against it.
    Rules(rules_cli::Args),
}

fn main() -> ExitCode {
    tls::install_provider();
    let code = match Arguments::parse().command {
        Command::Run { config } => run(&config),
        Command::CheckConfig { config } => check_config(&config),
        Command::HashPassword => hash_password(),
        Command::Verify(arguments) => verify_topics(&arguments),
        Command::Outbox(arguments) => examine_outbox(&arguments),
        Command::DeadLetter(arguments) => dead_letters(&arguments),
        Command::Rules(arguments) => rules(&arguments),
    };
    ExitCode::from(code)
}

fn run(config: &std::path::Path) -> u8 {
    let settings = match Settings::load(config, std::env::vars()) {
        Ok(settings) => settings,
        Err(error) => return misconfigured(&error),
    };
    observe::start_logging(&settings.log);
    match app::run(settings, config.to_owned(), announce) {
        Ok(()) => ASKED,
        Err(error) => {
            complain(&supervise::chain(&error));
            if error.is_configuration() { MISCONFIGURED } else { FAILED }
        }
    }
}

/// Tells whoever started the gateway where it listens, as one line of JSON on standard output.
fn announce(ready: &app::Ready) {
    say(&serde_json::to_string(ready).unwrap_or_default());
}

fn check_config(config: &std::path::Path) -> u8 {
    match Settings::load(config, std::env::vars()) {
        Ok(settings) => {
            say(&settings.effective);
            ASKED
        }
        Err(error) => misconfigured(&error),
    }
}

fn hash_password() -> u8 {
    if std::io::stdin().is_terminal() {
        complain("type the password and end with Ctrl-D");
    }
    let mut password = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut password) {
        complain(&format!("standard input: {error}"));
        return FAILED;
    }
    match mqtt::hash_password(password.trim_end_matches(['\r', '\n']).as_bytes()) {
        Ok(hash) => {
            say(&hash);
            ASKED
        }
        Err(error) => {
            complain(&supervise::chain(&error));
            MISCONFIGURED
        }
    }
}

fn verify_topics(arguments: &verify::Args) -> u8 {
    match verify::run(arguments, std::io::stdout().lock()) {
        Ok(true) => ASKED,
        Ok(false) => FAILED,
        Err(error) => {
            complain(&supervise::chain(&error));
            error.exit_code()
        }
    }
}

fn examine_outbox(arguments: &examine::Args) -> u8 {
    match examine::run(arguments, &mut std::io::stdout().lock(), &mut std::io::stderr()) {
        Ok(true) => ASKED,
        Ok(false) => FAILED,
        Err(error) => {
            complain(&supervise::chain(&error));
            error.exit_code()
        }
    }
}

fn dead_letters(arguments: &examine::DeadLetterArgs) -> u8 {
    let file = match arguments.config() {
        Ok(file) => file,
        Err(error) => {
            complain(&supervise::chain(&error));
            return error.exit_code();
        }
    };
    let settings = match Settings::load(file, std::env::vars()) {
        Ok(settings) => settings,
        Err(error) => return misconfigured(&error),
    };
    let site = examine::Site {
        gateway: settings.gateway.id,
        outbox: settings.outbox,
        consumers: app::consumers(settings.uplink.is_some(), settings.alerts.as_ref()),
        admin: settings.admin.admin_address,
    };
    let (mut out, mut remarks) = (std::io::stdout().lock(), std::io::stderr());
    match examine::dead_letters(arguments, site, &mut out, &mut remarks) {
        Ok(true) => ASKED,
        Ok(false) => FAILED,
        Err(error) => {
            complain(&supervise::chain(&error));
            error.exit_code()
        }
    }
}

fn rules(arguments: &rules_cli::Args) -> u8 {
    match rules_cli::run(arguments, &mut std::io::stdout().lock()) {
        Ok(true) => ASKED,
        Ok(false) => FAILED,
        Err(error) => {
            complain(&supervise::chain(&error));
            error.exit_code()
        }
    }
}

fn misconfigured(error: &ConfigError) -> u8 {
    complain(&error.to_string());
    MISCONFIGURED
}

/// A line on standard output. A reader that went away is no error of ours.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// A line on standard error.
fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "penstock: {line}"));
}
