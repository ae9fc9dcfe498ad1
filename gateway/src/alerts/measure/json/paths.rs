//! The wanted paths, as a tree that is walked beside the JSON.

use std::collections::{BTreeMap, HashMap};

/// Most steps of a path; a longer one is none.
pub(super) const STEPS_MAX: usize = 32;
/// Up to here members are compared one by one, which is faster than hashing.
const FEW: usize = 8;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(Box<str>),
    Item(u32),
}

/// The paths. A node stands before all nodes below it, and those in a row.
#[derive(Debug, Default)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// The node of each metric; [`usize::MAX`] for a name that is no path.
    node_of: Vec<usize>,
}

/// A place in a JSON text that a path leads to or through.
#[derive(Debug)]
pub(super) struct Node {
    /// Its own place among the nodes.
    pub(super) id: usize,
    /// Behind the last node below it.
    pub(super) end: usize,
    /// The metrics whose path ends here: one, but for two spellings of one path.
    pub(super) metrics: Box<[u16]>,
    /// Whether the time is here.
    pub(super) is_time: bool,
    keys: Keys,
    items: Box<[(u32, usize)]>,
}

#[derive(Debug)]
enum Keys {
    Few(Box<[(Box<str>, usize)]>),
    Many(HashMap<Box<str>, usize>),
}

/// The tree while it grows.
#[derive(Debug, Default)]
struct Draft {
    metrics: Vec<u16>,
    is_time: bool,
    keys: BTreeMap<Box<str>, Draft>,
    items: BTreeMap<u32, Draft>,
}

// === impl Paths ===

impl Paths {
    /// Metrics by their place in the list. Names that are no path are never found.
    pub(super) fn new(metrics: &[Box<str>], time: Option<&str>) -> Self {
        let mut root = Draft::default();
        let mut wanted = false;
        for (metric, name) in (0..u16::MAX).zip(metrics) {
            if let Some(steps) = parse(name) {
                root.at(steps).metrics.push(metric);
                wanted = true;
            }
        }
        if !wanted {
            return Self::default();
        }
        if let Some(steps) = time.and_then(parse) {
            root.at(steps).is_time = true;
        }
        let mut paths = Self { nodes: Vec::new(), node_of: vec![usize::MAX; metrics.len()] };
        paths.add(root);
        paths
    }

    /// Where every path begins; `None` if none is wanted.
    pub(super) fn root(&self) -> Option<&Node> {
        self.nodes.first()
    }

    /// How many nodes there are.
    pub(super) const fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: usize) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Whether the metric is at `node` or below it.
    pub(super) fn is_below(&self, metric: u16, node: &Node) -> bool {
        self.node_of.get(usize::from(metric)).is_some_and(|id| (node.id..node.end).contains(id))
    }

    fn add(&mut self, draft: Draft) -> usize {
        let id = self.nodes.len();
        let Draft { metrics, is_time, keys, items } = draft;
        for metric in &metrics {
            if let Some(place) = self.node_of.get_mut(usize::from(*metric)) {
                *place = id;
            }
        }
        let none = Keys::Few(Box::default());
        let items_none = Box::default();
        self.nodes.push(Node { id, end: 0, metrics: metrics.into(), is_time, keys: none, items: items_none });
        let keys: Vec<_> = keys.into_iter().map(|(key, draft)| (key, self.add(draft))).collect();
        let items: Vec<_> = items.into_iter().map(|(item, draft)| (item, self.add(draft))).collect();
        let end = self.nodes.len();
        if let Some(node) = self.nodes.get_mut(id) {
            node.end = end;
            node.items = items.into();
            let few = keys.len() <= FEW;
            node.keys = if few { Keys::Few(keys.into()) } else { Keys::Many(keys.into_iter().collect()) };
        }
        id
    }
}

// === impl Node ===

impl Node {
    /// The node of a member.
    pub(super) fn key(&self, key: &str) -> Option<usize> {
        match &self.keys {
            Keys::Few(keys) => keys.iter().find(|(name, _)| &**name == key).map(|(_, id)| *id),
            Keys::Many(keys) => keys.get(key).copied(),
        }
    }

    /// The node of an element.
    pub(super) fn item(&self, item: u32) -> Option<usize> {
        self.items.iter().find(|(place, _)| *place == item).map(|(_, id)| *id)
    }

    /// Whether it leads to elements at all.
    pub(super) const fn has_items(&self) -> bool {
        !self.items.is_empty()
    }
}

// === impl Draft ===

impl Draft {
    fn at(&mut self, steps: Vec<Step>) -> &mut Self {
        steps.into_iter().fold(self, |draft, step| match step {
            Step::Key(key) => draft.keys.entry(key).or_default(),
            Step::Item(item) => draft.items.entry(item).or_default(),
        })
    }
}

/// `a.b`, `a[2].b`, `["a.b"].c`; `$` is the value itself. `None` if it is no path.
fn parse(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    if text == "$" {
        return Some(steps);
    }
    let mut rest = text;
    loop {
        rest = if let Some(inner) = rest.strip_prefix('[') {
            let (step, rest) = bracket(inner)?;
            steps.push(step);
            rest
        } else {
            // A key stands at the start or behind a dot.
            let inner = if steps.is_empty() { rest } else { rest.strip_prefix('.')? };
            let (key, rest) = inner.split_at(inner.find(['.', '[', ']', '"']).unwrap_or(inner.len()));
            steps.push(Step::Key(Some(key).filter(|key| !key.is_empty())?.into()));
            rest
        };
        if steps.len() > STEPS_MAX {
            return None;
        }
        if rest.is_empty() {
            return Some(steps);
        }
    }
}

/// What stands in brackets, and what follows them.
fn bracket(text: &str) -> Option<(Step, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (digits, rest) = text.split_once(']')?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        return Some((Step::Item(digits.parse().ok().filter(|_| plain)?), rest));
    };
    let mut key = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next()? {
            '"' => break,
            '\\' => key.push(letters.next().filter(|letter| matches!(letter, '"' | '\\'))?),
            letter => key.push(letter),
        }
    }
    Some((Step::Key(key.into()), letters.as_str().strip_prefix(']')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[Step]>) {
        assert_eq!(parse(text).as_deref(), expected, "{text}");
    }

    fn key(text: &str) -> Step {
        Step::Key(text.into())
    }

    #[test]
    fn a_path_names_members_and_elements() {
        check("$", Some(&[]));
        check("temperature", Some(&[key("temperature")]));
        check("motor.temp_c", Some(&[key("motor"), key("temp_c")]));
        check("values[2].v", Some(&[key("values"), Step::Item(2), key("v")]));
        check("[0][1]", Some(&[Step::Item(0), Step::Item(1)]));
        check(r#"["a.b"].c"#, Some(&[key("a.b"), key("c")]));
        check(r#"a["[x]"]["\"\\"]"#, Some(&[key("a"), key("[x]"), key("\"\\")]));
        check(r#"[""]"#, Some(&[key("")]));
        check("größe / °C $", Some(&[key("größe / °C $")]));
        check("a[4294967295]", Some(&[key("a"), Step::Item(u32::MAX)]));
    }

    #[test]
    fn what_is_no_path_is_not_taken_for_another() {
        let wrong = [
            "",
            ".",
            ".a",
            "a.",
            "a..b",
            "a[",
            "a[]",
            "a[x]",
            "a[-1]",
            "a[+1]",
            "a[4294967296]",
            "a]",
            "a[1]b",
            r#"a"b"#,
            r#"["a]"#,
            r#"["a""#,
            r#"["a\n"]"#,
            r#"["a"#,
            "a.[1]",
            "[1].",
        ];
        wrong.iter().for_each(|text| check(text, None));
        check("a.".repeat(STEPS_MAX).trim_end_matches('.'), Some(&vec![key("a"); STEPS_MAX]));
        check(&("a.".repeat(STEPS_MAX) + "a"), None);
    }

    #[test]
    fn the_tree_leads_to_every_metric() {
        let many: Vec<Box<str>> = (0..40).map(|number| format!("k{number}.v").into()).collect();
        let few: Vec<Box<str>> = ["a", "a.b", "a[1]", r#"["a"]"#, "a..", "$"].map(Into::into).to_vec();
        for metrics in [&many, &few] {
            let paths = Paths::new(metrics, Some("t"));
            for (place, name) in metrics.iter().enumerate() {
                let Some(steps) = parse(name) else { continue };
                let mut node = paths.root().unwrap();
                for step in steps {
                    let id = match &step {
                        Step::Key(key) => node.key(key),
                        Step::Item(item) => node.item(*item),
                    };
                    node = paths.node(id.unwrap()).unwrap();
                }
                let metric = u16::try_from(place).unwrap();
                assert!(node.metrics.contains(&metric), "{name}");
                assert!(paths.is_below(metric, node) && paths.is_below(metric, paths.root().unwrap()));
                assert_eq!(node.key("nothing").or_else(|| node.item(9)), None);
            }
        }
    }

    #[test]
    fn without_a_wanted_path_there_is_nothing_to_walk() {
        assert!(Paths::new(&[], Some("t")).root().is_none());
        assert!(Paths::new(&["a..b".into()], None).root().is_none());
    }

    #[test]
    fn metrics_beyond_the_numbers_are_not_wanted() {
        let metrics: Vec<Box<str>> = (0..65_537).map(|number| format!("k{number}").into()).collect();
        let paths = Paths::new(&metrics, None);
        assert!(paths.root().unwrap().key("k65534").is_some());
        assert!(paths.root().unwrap().key("k65535").is_none());
    }
}
