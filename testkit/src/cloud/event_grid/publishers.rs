//! Publishers that were not written here: Microsoft's libraries for Python and JavaScript, behind one language.
//!
//! An order has `endpoint`, `events` and one way to sign in: `key`; `key` and `signed_until` (seconds since 1970) for a
//! signature; `token`. `topic` (Python only) makes the endpoint that of a namespace; `schema` (JavaScript only) is
//! `CloudEvent` unless it is said to be another.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::azure_clients::{NODE, PYTHON, node, node_has, python, python_has};
use crate::missing;

/// A library we did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    /// `azure.eventgrid`.
    Python,
    /// `@azure/eventgrid`.
    JavaScript,
}

/// An order that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refused {
    /// The status of the answer; none if the library did not ask.
    pub status: Option<u16>,
    /// The code of the error, if the library found one in the answer.
    pub code: Option<String>,
    /// The codes of its details.
    pub details: Vec<String>,
    /// What the library says.
    pub text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(#[expect(dead_code, reason = "there is nothing in it")] Value),
    Error(Refused),
}

impl Publisher {
    /// Those that are installed. Whatever is not is named: its part of a test is skipped then.
    ///
    /// # Panics
    /// Under continuous integration, when one of them is not.
    #[must_use]
    pub fn installed() -> Vec<Self> {
        let mut here = Vec::new();
        for (publisher, works) in [
            (Self::Python, python_has("azure.eventgrid, requests")),
            (Self::JavaScript, node_has("@azure/eventgrid")),
        ] {
            if works {
                here.push(publisher);
            } else {
                missing::skip(&format!(
                    "{publisher:?} has no client of Event Grid; set {PYTHON} and {NODE}, or run `cargo xtask test`, which installs both"
                ));
            }
        }
        here
    }

    /// Carries orders out, one after the other. `authority` is the certificate authority of the service, PEM. Nothing is
    /// tried again.
    ///
    /// # Errors
    /// When the library is not installed, or does not answer each order.
    pub fn publish(self, orders: &[Value], authority: Option<&Path>) -> io::Result<Vec<Result<(), Refused>>> {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut lines = String::new();
        for order in orders {
            let mut order = order.clone();
            if let Some(authority) = authority {
                order["authority"] = json!(authority);
                command.env("NODE_EXTRA_CA_CERTS", authority);
            }
            lines.push_str(&format!("{order}\n"));
        }
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let output = thread::scope(|scope| {
            // A client that ends early is known by its answers.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(lines.as_bytes())));
            child.wait_with_output()
        })?;
        let answers = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let answers: Vec<Answer> = answers.map(serde_json::from_slice).collect::<Result<_, _>>()?;
        if answers.len() != orders.len() {
            let words = String::from_utf8_lossy(&output.stderr);
            let said = format!("{self:?} gave {} answers to {} orders: {words}", answers.len(), orders.len());
            return Err(io::Error::other(said));
        }
        let judged = answers.into_iter().map(|answer| match answer {
            Answer::Ok(_) => Ok(()),
            Answer::Error(refused) => Err(refused),
        });
        Ok(judged.collect())
    }

    fn command(self) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cloud/event_grid");
        match self {
            Self::Python => {
                let mut command = Command::new(python());
                command.args(["-B", "-u"]).arg(here.join("publish.py"));
                command
            }
            Self::JavaScript => {
                let mut command = Command::new("node");
                command.arg("--no-deprecation").arg(here.join("publish.mjs")).arg(node().unwrap_or_default());
                command
            }
        }
    }
}
