//! Which queues of Service Bus rules may send to.

/// The queues that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Queues {
    /// Nobody knows which there will be: a rules file is only looked at.
    Any,
    /// These, by their names.
    Only(Vec<Box<str>>),
}

impl Queues {
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Any => !name.is_empty(),
            Self::Only(names) => names.iter().any(|known| **known == *name),
        }
    }

    /// What a queue may be, for errors.
    pub(crate) fn allowed(&self) -> String {
        match self {
            Self::Any => "the name of a queue".to_owned(),
            Self::Only(names) if names.is_empty() => {
                "a queue that the configuration names, and it names none".to_owned()
            }
            Self::Only(names) => format!("a queue that the configuration names: {}", names.join(", ")),
        }
    }
}
