//! Topics of Sparkplug B: `spBv1.0/GROUP/TYPE/NODE` and `spBv1.0/GROUP/TYPE/NODE/DEVICE` (Sparkplug 3.0, section 4).

/// The first level of every topic.
pub(in crate::alerts::measure) const NAMESPACE: &str = "spBv1.0";

/// Where a message comes from, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topic<'a> {
    pub(super) group: &'a str,
    pub(super) node: &'a str,
    pub(super) told: Told<'a>,
}

/// What a message tells. A device is one behind the edge node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told<'a> {
    NodeBirth,
    NodeDeath,
    NodeValues,
    DeviceBirth(&'a str),
    DeviceDeath(&'a str),
    DeviceValues(&'a str),
}

impl<'a> Topic<'a> {
    /// `None` if it is another topic, or one without measurements.
    pub(super) fn read(topic: &'a str) -> Option<Self> {
        let mut levels = topic.split('/');
        if levels.next() != Some(NAMESPACE) {
            return None;
        }
        let (group, kind, node) = (levels.next()?, levels.next()?, levels.next()?);
        let told = match (kind, levels.next()) {
            ("NBIRTH", None) => Told::NodeBirth,
            ("NDEATH", None) => Told::NodeDeath,
            ("NDATA", None) => Told::NodeValues,
            ("DBIRTH", Some(device)) => Told::DeviceBirth(device),
            ("DDEATH", Some(device)) => Told::DeviceDeath(device),
            ("DDATA", Some(device)) => Told::DeviceValues(device),
            _ => return None,
        };
        let named = !group.is_empty() && !node.is_empty() && told.device() != Some("");
        Some(Self { group, node, told }).filter(|_| named && levels.next().is_none())
    }
}

impl<'a> Told<'a> {
    pub(super) const fn device(self) -> Option<&'a str> {
        match self {
            Self::DeviceBirth(device) | Self::DeviceDeath(device) | Self::DeviceValues(device) => {
                Some(device)
            }
            Self::NodeBirth | Self::NodeDeath | Self::NodeValues => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(topic: &str, expected: Option<Told<'_>>) {
        let expected = expected.map(|told| Topic { group: "plant 1", node: "line-2", told });
        assert_eq!(Topic::read(topic), expected, "{topic}");
    }

    #[test]
    fn a_topic_says_who_tells_what() {
        check("spBv1.0/plant 1/NBIRTH/line-2", Some(Told::NodeBirth));
        check("spBv1.0/plant 1/NDEATH/line-2", Some(Told::NodeDeath));
        check("spBv1.0/plant 1/NDATA/line-2", Some(Told::NodeValues));
        check("spBv1.0/plant 1/DBIRTH/line-2/press-1", Some(Told::DeviceBirth("press-1")));
        check("spBv1.0/plant 1/DDEATH/line-2/press-1", Some(Told::DeviceDeath("press-1")));
        check("spBv1.0/plant 1/DDATA/line-2/press-1", Some(Told::DeviceValues("press-1")));
    }

    #[test]
    fn other_topics_carry_no_measurements() {
        for topic in [
            "",
            "spBv1.0",
            "spBv1.0/STATE/host",
            "spBv1.0/plant 1/NCMD/line-2",
            "spBv1.0/plant 1/DCMD/line-2/press-1",
            "spBv1.0/plant 1/NDATA/line-2/press-1",
            "spBv1.0/plant 1/DDATA/line-2",
            "spBv1.0/plant 1/DDATA/line-2/",
            "spBv1.0/plant 1/DDATA/line-2/press-1/x",
            "spBv1.0//NDATA/line-2",
            "spBv1.0/plant 1/NDATA/",
            "spBv1.0/plant 1/ndata/line-2",
            "spAv1.0/plant 1/NDATA/line-2",
        ] {
            check(topic, None);
        }
    }
}
