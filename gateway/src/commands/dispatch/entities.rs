//! Which queue, or subscription of a topic, holds a device's commands.

use std::fmt::Write as _;
use std::sync::Arc;

use super::EntityNo;
use crate::commands::contract::shard;

/// Longest name of an entity that Service Bus takes.
pub(crate) const ENTITY_CHARS_MAX: usize = 260;
/// Most entities that one gateway receives from: each has receivers and a budget of its own.
pub(crate) const ENTITIES_MAX: usize = 256;

/// A template of entity names: plain text with `{site}`, `{tenant}`, `{class}` and `{shard}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntityTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Plain(String),
    Site,
    Tenant,
    Class,
    Shard,
}

/// What a device is, as far as entity names tell devices apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) site: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) class: Option<String>,
}

/// Devices that have traits of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// A device's name; one `*` stands for any text.
    pub(crate) devices: String,
    /// What is set here replaces what holds for all.
    pub(crate) traits: Traits,
}

/// Every entity that devices of this gateway can have, by number.
#[derive(Debug, Clone)]
pub(crate) struct Entities {
    names: Vec<Arc<str>>,
    groups: Vec<String>,
    /// For the groups in their order and then for all others.
    tenants: Vec<Option<String>>,
    /// For the groups in their order and then for all others: the number of the entity of each shard.
    places: Vec<Vec<EntityNo>>,
}

/// A template, or a configuration around it, that names no entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntityError {
    /// The text is no template.
    #[error(
        "a queue, or TOPIC/Subscriptions/NAME, of A-Z a-z 0-9 . _ - / and {{site}} {{tenant}} {{class}} {{shard}}"
    )]
    Template,
    /// It names a trait that some device does not have.
    #[error("a template without {{{0}}}, or commands.{0}, or a group for every device")]
    Missing(&'static str),
    /// Several shards and no place for their number.
    #[error("a template with {{shard}}, since commands.shards is above 1")]
    Shard,
    /// Too many names come of it.
    #[error("a template and groups that make at most {ENTITIES_MAX} entities")]
    TooMany,
}

// === impl EntityTemplate ===

impl EntityTemplate {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, EntityError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or(EntityError::Template)?;
            parts.extend(plain_part(plain)?);
            parts.push(match name {
                "site" => Part::Site,
                "tenant" => Part::Tenant,
                "class" => Part::Class,
                "shard" => Part::Shard,
                _ => return Err(EntityError::Template),
            });
            rest = behind;
        }
        parts.extend(plain_part(rest)?);
        let slashes = text.matches('/').count();
        let subscription = text.to_ascii_lowercase().contains("/subscriptions/");
        let whole = !text.starts_with('/') && !text.ends_with('/') && !text.contains("//");
        // A queue's name may have levels; a subscription has exactly one level behind the word.
        let placed = !subscription
            || text
                .to_ascii_lowercase()
                .split("/subscriptions/")
                .nth(1)
                .is_some_and(|name| !name.contains('/'));
        (!parts.is_empty() && whole && placed && slashes <= 8)
            .then_some(Self(parts))
            .ok_or(EntityError::Template)
    }

    fn has_shard(&self) -> bool {
        self.0.contains(&Part::Shard)
    }

    fn name(&self, traits: &Traits, shard: u32) -> Result<String, EntityError> {
        let mut name = String::new();
        for part in &self.0 {
            let known = |value: &Option<String>, what| value.clone().ok_or(EntityError::Missing(what));
            match part {
                Part::Plain(text) => name.push_str(text),
                Part::Site => name.push_str(&known(&traits.site, "site")?),
                Part::Tenant => name.push_str(&known(&traits.tenant, "tenant")?),
                Part::Class => name.push_str(&known(&traits.class, "class")?),
                // Writing to a string does not fail.
                Part::Shard => drop(write!(name, "{shard}")),
            }
        }
        if name.len() > ENTITY_CHARS_MAX { Err(EntityError::Template) } else { Ok(name) }
    }
}

fn plain_part(text: &str) -> Result<Option<Part>, EntityError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if !text.chars().all(plain) {
        return Err(EntityError::Template);
    }
    Ok((!text.is_empty()).then(|| Part::Plain(text.to_owned())))
}

// === impl Traits ===

impl Traits {
    fn or(&self, others: &Self) -> Self {
        Self {
            site: self.site.clone().or_else(|| others.site.clone()),
            tenant: self.tenant.clone().or_else(|| others.tenant.clone()),
            class: self.class.clone().or_else(|| others.class.clone()),
        }
    }
}

// === impl Entities ===

impl Entities {
    /// Every entity that `template` makes of the traits of all devices, those of `groups` and `shards` from 0.
    pub(crate) fn new(
        template: &EntityTemplate,
        all: &Traits,
        groups: &[Group],
        shards: u32,
    ) -> Result<Self, EntityError> {
        if shards > 1 && !template.has_shard() {
            return Err(EntityError::Shard);
        }
        let mut entities = Self {
            names: Vec::new(),
            groups: groups.iter().map(|group| group.devices.clone()).collect(),
            tenants: Vec::new(),
            places: Vec::new(),
        };
        for group in groups {
            entities.add(template, &group.traits.or(all), shards)?;
        }
        let everybody = groups.last().is_some_and(|group| group.devices == "*");
        if !everybody {
            entities.add(template, all, shards)?;
        }
        Ok(entities)
    }

    fn add(&mut self, template: &EntityTemplate, traits: &Traits, shards: u32) -> Result<(), EntityError> {
        let mut places = Vec::new();
        for shard in 0..shards.max(1) {
            let name = template.name(traits, shard)?;
            let known = self.names.iter().position(|known| known.eq_ignore_ascii_case(&name));
            let place = known.unwrap_or(self.names.len());
            if known.is_none() {
                self.names.push(name.into());
            }
            if self.names.len() > ENTITIES_MAX {
                return Err(EntityError::TooMany);
            }
            places.push(EntityNo(place));
        }
        self.places.push(places);
        self.tenants.push(traits.tenant.clone());
        Ok(())
    }

    /// The tenant of `device`, if one is known.
    pub(crate) fn tenant(&self, device: &str) -> Option<&str> {
        let group = self.groups.iter().position(|pattern| matches(pattern, device));
        group.map_or(self.tenants.last(), |group| self.tenants.get(group))?.as_deref()
    }

    /// The entity that holds the commands of `device`.
    pub(crate) fn of(&self, device: &str) -> EntityNo {
        let group = self.groups.iter().position(|pattern| matches(pattern, device));
        let places = group.map_or(self.places.last(), |group| self.places.get(group));
        let shards = places.map_or(1, |places| u32::try_from(places.len()).unwrap_or(u32::MAX));
        let shard = usize::try_from(shard(device, shards)).unwrap_or_default();
        places.and_then(|places| places.get(shard)).copied().unwrap_or(EntityNo(0))
    }

    /// The name of an entity.
    pub(crate) fn name(&self, entity: EntityNo) -> Arc<str> {
        self.names.get(entity.0).map_or_else(|| Arc::from(""), Arc::clone)
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.names.len()
    }

    /// Their names, in the order of their numbers.
    pub(crate) fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

fn matches(pattern: &str, device: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == device,
        Some((start, end)) => {
            device.len() >= start.len() + end.len() && device.starts_with(start) && device.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(site: &str) -> Traits {
        Traits { site: Some(site.to_owned()), ..Traits::default() }
    }

    fn check(template: &str, shards: u32, expected: Result<&[&str], EntityError>) {
        let made = EntityTemplate::parse(template)
            .and_then(|template| Entities::new(&template, &traits("oslo"), &[], shards));
        let names = made.map(|made| made.names().iter().map(|name| name.to_string()).collect::<Vec<_>>());
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names, expected, "{template}");
    }

    #[test]
    fn templates_name_queues_and_subscriptions() {
        check("commands", 1, Ok(&["commands"]));
        check("commands-{site}-{shard}", 3, Ok(&["commands-oslo-0", "commands-oslo-1", "commands-oslo-2"]));
        check("commands/Subscriptions/{site}", 1, Ok(&["commands/Subscriptions/oslo"]));
        check("plants/{site}/commands", 1, Ok(&["plants/oslo/commands"]));
        check("commands", 2, Err(EntityError::Shard));
        check("commands-{tenant}", 1, Err(EntityError::Missing("tenant")));
        check("{shard}", 257, Err(EntityError::TooMany));
        for wrong in
            ["", "/commands", "commands/", "a//b", "com mands", "{device}", "{site", "t/Subscriptions/a/b"]
        {
            check(wrong, 1, Err(EntityError::Template));
        }
    }

    #[test]
    fn devices_are_spread_over_the_shards_by_the_hash_that_senders_know() {
        let template = EntityTemplate::parse("c-{shard}").unwrap();
        let entities = Entities::new(&template, &Traits::default(), &[], 10).unwrap();
        // The check value of CRC-32C.
        assert_eq!(&*entities.name(entities.of("123456789")), format!("c-{}", 0xE306_9283_u32 % 10));
        let mut used: Vec<_> = (0..1000).map(|n| entities.of(&format!("device-{n}")).0).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_group_that_matches_decides() {
        let template = EntityTemplate::parse("c-{site}").unwrap();
        let group = |devices: &str, site: &str| Group { devices: devices.to_owned(), traits: traits(site) };
        let groups = [group("pump-7", "bergen"), group("pump-*", "tromso"), group("*-x", "oslo")];
        let entities = Entities::new(&template, &traits("oslo"), &groups, 1).unwrap();
        let named = |device: &str| entities.name(entities.of(device)).to_string();
        assert_eq!(named("pump-7"), "c-bergen");
        assert_eq!(named("pump-8-x"), "c-tromso");
        assert_eq!(named("valve-x"), "c-oslo");
        assert_eq!(named("valve"), "c-oslo");
        assert_eq!(entities.len(), 3, "one name is one entity");
    }

    #[test]
    fn a_last_group_for_everybody_needs_no_trait_for_all() {
        let template = EntityTemplate::parse("c-{site}").unwrap();
        let everybody = Group { devices: "*".to_owned(), traits: traits("oslo") };
        assert!(Entities::new(&template, &Traits::default(), &[everybody], 1).is_ok());
    }
}
