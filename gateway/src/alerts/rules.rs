//! The rules file as a whole: rules, and the policy for what they raise.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lifecycle::{Policy, PolicyError, RuleFacts, Rulebook};
use super::reaction::Queues;
use super::rule::{FILE_BYTES_MAX, FileError, RuleError, RuleSet};

/// Largest rules file.
const BYTES_MAX: u64 = FILE_BYTES_MAX as u64;

/// What a rules file says, checked. Rules with errors are left out, and named in [`Self::errors`].
#[derive(Debug, Clone)]
pub struct Rules {
    pub(super) set: Arc<RuleSet>,
    pub(super) policy: Arc<Policy>,
    /// What alerts say about their rules.
    pub(super) book: Arc<Rulebook>,
    errors: Arc<[RuleError]>,
}

/// A rules file, and what the configuration says of it.
#[derive(Debug, Clone)]
pub struct RulesFile {
    path: PathBuf,
    /// Where actions may send to.
    queues: Queues,
}

/// Why a rules file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("cannot read the rules file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's refusal.
        source: io::Error,
    },
    /// It is too large.
    #[error("the rules file {path} has {bytes} bytes, more than {BYTES_MAX}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not in the form of a rules file.
    #[error(transparent)]
    File(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl RulesFile {
    pub(super) const fn new(path: PathBuf, queues: Queues) -> Self {
        Self { path, queues }
    }

    /// Reads it. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// As [`Rules::load`].
    pub fn load(&self) -> Result<Rules, RulesError> {
        Rules::load_for(&self.path, &self.queues)
    }
}

impl Rules {
    /// Reads `path`. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When nothing of it can be used; a rule that alone is wrong is no error.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        Self::load_for(path, &Queues::Any)
    }

    /// As [`Self::load`], where actions may send to `queues` only.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    fn load_for(path: &Path, queues: &Queues) -> Result<Self, RulesError> {
        let failed = |source| RulesError::Read { path: path.to_owned(), source };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > BYTES_MAX {
            return Err(RulesError::TooLarge { path: path.to_owned(), bytes });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse_for(&text, &path.display().to_string(), queues)
    }

    /// Reads `text`, which stands in `file`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn parse(text: &str, file: &str) -> Result<Self, RulesError> {
        Self::parse_for(text, file, &Queues::Any)
    }

    /// As [`Self::parse`], where actions may send to `queues` only.
    pub(super) fn parse_for(text: &str, file: &str, queues: &Queues) -> Result<Self, RulesError> {
        let parsed = RuleSet::parse_for(text, file, queues)
            .map_err(|error: FileError| RulesError::File(error.into()))?;
        let policy = Policy::read(parsed.alerting.as_ref(), &parsed.mutes, file)
            .map_err(|error: PolicyError| RulesError::File(error.into()))?;
        let book = Arc::new(Rulebook::new(facts(&parsed.rules)));
        Ok(Self { set: Arc::new(parsed.rules), policy: Arc::new(policy), book, errors: parsed.errors.into() })
    }

    /// How many rules are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a rule at a place here is among the `others` with the same meaning.
    pub(super) fn has_same(&self, place: u16, others: &Self) -> bool {
        let rule = self.set.rule(place);
        let other = others.set.find(&rule.id).map(|place| others.set.rule(place));
        other.is_some_and(|other| other.fingerprint == rule.fingerprint)
    }

    /// What is wrong with the rules that were left out, one line each.
    pub fn errors(&self) -> impl ExactSizeIterator<Item = String> {
        self.errors.iter().map(ToString::to_string)
    }
}

/// What alerts say about their rules, in the rules' places.
fn facts(rules: &RuleSet) -> Vec<RuleFacts> {
    let facts = rules.places().map(|(_, rule)| RuleFacts {
        id: rule.id.clone(),
        version: rule.version,
        meaning: rule.fingerprint,
        runbook: rule.runbook.clone(),
        labels: rule.labels.to_vec(),
        actions: Arc::clone(&rule.actions),
        inhibited_by: rule.inhibited_by.iter().map(|place| rules.rule(*place).id.clone()).collect(),
    });
    facts.collect()
}
