//! What clients may publish and subscribe to, beyond a device's own topics.
//!
//! Rules are tried in the order of the file and the first that fits decides; what no rule fits is
//! denied. A rule fits a topic that its filter matches, and a subscription whose every possible topic
//! it matches: two rules never join to allow one subscription. A subscription may be allowed although
//! an earlier rule denies a part of it; it is *guarded* then, and each message is asked about before
//! it is delivered.

use super::pattern::Pattern;
use crate::mqtt::codec::Reason;

/// One access rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub effect: Effect,
    /// What it is about.
    pub action: Action,
    /// The topics it is about.
    pub filter: Pattern,
    /// The user it binds; everyone if it names none.
    pub user: Option<String>,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It may be done.
    Allow,
    /// It may not, and MQTT 5 clients are told 0x87, "not authorized".
    Deny,
    /// It may not, and MQTT 5 clients are told 0x80, "unspecified error".
    DenyUnspecified,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Publishing.
    Publish,
    /// Subscribing.
    Subscribe,
    /// Both.
    All,
}

/// The client that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Who<'a> {
    /// Its user, if a password proved it.
    pub(in crate::mqtt) user: Option<&'a str>,
    /// Its client id.
    pub(in crate::mqtt) client: &'a str,
    /// The device it is.
    pub(in crate::mqtt) device: &'a str,
}

/// A subscription that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Grant {
    /// A part of it is denied: ask [`Rules::may_receive`] before each delivery.
    pub(in crate::mqtt) guarded: bool,
}

/// All access rules, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::mqtt) struct Rules {
    publish: Box<[Rule]>,
    subscribe: Box<[Rule]>,
}

// === impl Rules ===

impl Rules {
    pub(in crate::mqtt) fn new(rules: &[Rule]) -> Self {
        let about = |action| {
            let chosen = rules.iter().filter(|rule| rule.action == action || rule.action == Action::All);
            chosen.cloned().collect()
        };
        Self { publish: about(Action::Publish), subscribe: about(Action::Subscribe) }
    }

    /// Decides on a publish to a topic that is not one of the device's own. Allocates nothing.
    ///
    /// # Errors
    ///
    /// The reason to tell. Topics of `$SYS` are the gateway's alone.
    #[inline]
    pub(in crate::mqtt) fn may_publish(&self, who: Who<'_>, topic: &str) -> Result<(), Reason> {
        if is_sys(topic) {
            return Err(Reason::NotAuthorized);
        }
        first(&self.publish, who, topic).map_or(Err(Reason::NotAuthorized), |rule| rule.effect.verdict())
    }

    /// Decides on a subscription that reaches beyond the device's own topics. A shared one is asked
    /// for by its filter alone.
    ///
    /// # Errors
    ///
    /// The reason to tell.
    pub(in crate::mqtt) fn may_subscribe(&self, who: Who<'_>, filter: &str) -> Result<Grant, Reason> {
        let mut guarded = false;
        for rule in self.subscribe.iter().filter(|rule| rule.binds(who)) {
            if rule.filter.covers(who, filter) {
                return rule.effect.verdict().map(|()| Grant { guarded });
            }
            guarded |= rule.effect != Effect::Allow && rule.filter.overlaps(who, filter);
        }
        Err(Reason::NotAuthorized)
    }

    /// Decides on a delivery through a guarded subscription. Allocates nothing.
    #[inline]
    pub(in crate::mqtt) fn may_receive(&self, who: Who<'_>, topic: &str) -> bool {
        first(&self.subscribe, who, topic).is_some_and(|rule| rule.effect == Effect::Allow)
    }
}

#[inline]
fn first<'a>(rules: &'a [Rule], who: Who<'_>, topic: &str) -> Option<&'a Rule> {
    rules.iter().find(|rule| rule.binds(who) && rule.filter.covers(who, topic))
}

fn is_sys(topic: &str) -> bool {
    topic.strip_prefix("$SYS").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

// === impl Rule ===

impl Rule {
    #[inline]
    fn binds(&self, who: Who<'_>) -> bool {
        self.user.as_deref().is_none_or(|user| who.user == Some(user))
    }
}

// === impl Effect ===

impl Effect {
    const fn verdict(self) -> Result<(), Reason> {
        match self {
            Self::Allow => Ok(()),
            Self::Deny => Err(Reason::NotAuthorized),
            Self::DenyUnspecified => Err(Reason::UnspecifiedError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: Who<'_> = Who { user: Some("anna"), client: "c1", device: "d1" };
    const NOBODY: Who<'_> = Who { user: None, client: "c1", device: "d1" };

    fn rule(effect: Effect, action: Action, filter: &str) -> Rule {
        Rule { effect, action, filter: filter.parse().expect(filter), user: None }
    }

    fn of(user: &str, rule: Rule) -> Rule {
        Rule { user: Some(user.to_owned()), ..rule }
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_none_denies() {
        use Effect::{Allow, Deny, DenyUnspecified};
        let rules = Rules::new(&[
            rule(DenyUnspecified, Action::All, "test/nosubscribe"),
            of("anna", rule(Allow, Action::All, "building/#")),
            rule(Deny, Action::Publish, "building/{device}/locked"),
            rule(Allow, Action::Publish, "building/{device}/#"),
            rule(Allow, Action::Subscribe, "news/+"),
        ]);
        let check = |who, topic, publish, subscribe| {
            assert_eq!(rules.may_publish(who, topic), publish, "publish {topic} as {who:?}");
            let subscribed = rules.may_subscribe(who, topic).map(|grant| assert!(!grant.guarded));
            assert_eq!(subscribed, subscribe, "subscribe {topic} as {who:?}");
            assert_eq!(rules.may_receive(who, topic), subscribe.is_ok(), "receive {topic} as {who:?}");
        };
        let (denied, unspecified) = (Err(Reason::NotAuthorized), Err(Reason::UnspecifiedError));
        check(NOBODY, "test/nosubscribe", unspecified, unspecified);
        check(ANNA, "building/d1/locked", Ok(()), Ok(()));
        check(NOBODY, "building/d1/locked", denied, denied);
        check(NOBODY, "building/d1/open", Ok(()), denied);
        check(NOBODY, "building/d2/open", denied, denied);
        check(NOBODY, "news/today", denied, Ok(()));
        check(NOBODY, "news/today/late", denied, denied);
        check(ANNA, "elsewhere", denied, denied);
        assert_eq!(Rules::default().may_publish(ANNA, "a"), denied);
        assert_eq!(Rules::default().may_subscribe(ANNA, "a"), Err(Reason::NotAuthorized));
    }

    #[test]
    fn a_subscription_is_guarded_if_a_part_of_it_is_denied_before() {
        use Effect::{Allow, Deny};
        let subscribe = Action::Subscribe;
        let rules = Rules::new(&[
            rule(Allow, subscribe, "a/b/public"),
            rule(Deny, subscribe, "a/b/#"),
            rule(Deny, Action::Publish, "a/c"),
            rule(Allow, subscribe, "a/#"),
            rule(Deny, subscribe, "a/d"),
        ]);
        let check = |filter, expected: Result<bool, Reason>| {
            let granted = rules.may_subscribe(NOBODY, filter).map(|grant| grant.guarded);
            assert_eq!(granted, expected, "{filter}");
        };
        check("a/#", Ok(true));
        check("a/+/x", Ok(true));
        check("a/b/#", Err(Reason::NotAuthorized));
        check("a/b/+", Err(Reason::NotAuthorized));
        check("a/b/public", Ok(false));
        check("a/c/#", Ok(false));
        check("a/d", Ok(false));
        check("#", Err(Reason::NotAuthorized));
        for (topic, expected) in [("a/b/public", true), ("a/b/x", false), ("a/b", false), ("a/c", true)] {
            assert_eq!(rules.may_receive(NOBODY, topic), expected, "{topic}");
        }
    }

    #[test]
    fn nobody_publishes_to_the_gateways_own_topics() {
        let rules = Rules::new(&[rule(Effect::Allow, Action::All, "#")]);
        for own in ["$SYS", "$SYS/", "$SYS/uptime"] {
            assert_eq!(rules.may_publish(ANNA, own), Err(Reason::NotAuthorized), "{own}");
            assert!(rules.may_receive(ANNA, own), "{own}");
        }
        for other in ["$SYST", "$sys/x", "a/$SYS", "$other/x"] {
            assert_eq!(rules.may_publish(ANNA, other), Ok(()), "{other}");
        }
        assert_eq!(rules.may_subscribe(ANNA, "$SYS/#"), Ok(Grant { guarded: false }));
    }

    /// Two filters, four users and topics of three levels, in every combination of two rules.
    #[test]
    fn an_unguarded_subscription_needs_no_asking_and_a_denied_one_is_not_allowed_whole() {
        let filters = ["#", "a/#", "a/+", "a/b", "+/b", "+/+/#", "{device}/#", "a"];
        let asked = ["#", "a/#", "a/+", "a/b", "+", "+/b/#", "d1/#", "a"];
        let topics = ["a", "b", "a/b", "a/c", "c/b", "a/b/c", "d1", "d1/b", "d1/b/x"];
        let effects = [Effect::Allow, Effect::Deny];
        let all = || effects.iter().flat_map(|effect| filters.map(|filter| (*effect, filter)));
        let mut guarded = 0;
        for (one, two, three) in all().flat_map(|x| all().map(move |y| (x, y, (Effect::Allow, "#")))) {
            let given = [one, two, three].map(|(effect, filter)| rule(effect, Action::Subscribe, filter));
            let rules = Rules::new(&given);
            for filter in asked {
                let matching =
                    topics.iter().filter(|topic| crate::mqtt::codec::filter_matches(filter, topic));
                let mut received = matching.map(|topic| rules.may_receive(NOBODY, topic));
                match rules.may_subscribe(NOBODY, filter) {
                    Ok(Grant { guarded: false }) => assert!(received.all(|may| may), "{given:?} {filter}"),
                    Ok(Grant { guarded: true }) => guarded += 1,
                    Err(_) => assert!(!received.all(|may| may), "{given:?} {filter}"),
                }
            }
        }
        assert!(guarded > 100, "{guarded}");
    }
}
