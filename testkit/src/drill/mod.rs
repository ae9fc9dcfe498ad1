//! What drills and tests of durability share: a [`stage::Stage`] on which a gateway dies and comes back under
//! a fleet, and the named moments at which it may die ([`points::POINTS`]).

pub mod broker;
pub mod points;
pub mod stage;
