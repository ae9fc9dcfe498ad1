//! The `[mqtt]` section.

mod access;
mod limits;
mod listener;
mod topic;

pub use access::Access;
pub use limits::Limits;
pub use listener::{Listener, OnFull};
pub use topic::Topic;

use super::devices::CommandTopic;
use crate::config::{ConfigError, Section, Shape};

/// The `[mqtt]` section.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bounds of connections, sessions and what is kept for them.
    pub limits: Limits,
    /// Where devices connect; at least one.
    pub listeners: Vec<Listener>,
    /// Who may connect.
    pub access: Access,
    /// What may be published; at least one.
    pub topics: Vec<Topic>,
    /// Where devices get commands, if they do. Not a key of this section: who sends commands sets it.
    pub commands: Option<CommandTopic>,
}

impl Config {
    pub(crate) const SHAPE: Shape =
        Shape::table("mqtt", "How devices connect and what they may publish.", limits::KEYS).with(&[
            listener::SHAPE,
            access::SHAPE,
            topic::SHAPE,
        ]);

    pub(crate) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let limits = Limits::read(section)?;
        let listeners: Vec<_> =
            section.children(&listener::SHAPE)?.iter_mut().map(Listener::read).collect::<Result<_, _>>()?;
        if listeners.is_empty() {
            return Err(section.child(&listener::SHAPE)?.missing(&listener::ADDRESS));
        }
        let access = Access::read(&mut section.child(&access::SHAPE)?)?;
        let mut topics: Vec<_> =
            section.children(&topic::SHAPE)?.iter_mut().map(Topic::read).collect::<Result<_, _>>()?;
        if topics.is_empty() {
            topics = Topic::defaults();
        }
        Ok(Self { limits, listeners, access, topics, commands: None })
    }
}
