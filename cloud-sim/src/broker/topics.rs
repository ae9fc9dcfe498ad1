//! Topics: named sets of partitions, each a directory of logs under `DATA/topics`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::RwLock;

use super::log::Partition;
use crate::error::{Error, TopicError};

/// Most partitions of all topics together; each holds a file open.
const PARTITIONS_MAX: usize = 512;
/// Kafka's limit for the length of a topic's name.
const NAME_BYTES_MAX: usize = 249;

/// A topic to create: `NAME:PARTITIONS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    name: String,
    partitions: usize,
}

impl TopicSpec {
    /// A topic with this name and number of partitions.
    ///
    /// # Errors
    /// When the name is not one Kafka allows, or the number is 0 or above 512.
    pub fn new(name: &str, partitions: usize) -> Result<Self, TopicError> {
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !letters || name == "." || name == ".." {
            return Err(TopicError::Name(name.to_owned()));
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(TopicError::Partitions { partitions, max: PARTITIONS_MAX });
        }
        Ok(Self { name: name.to_owned(), partitions })
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of partitions.
    pub fn partitions(&self) -> usize {
        self.partitions
    }
}

impl FromStr for TopicSpec {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let (name, partitions) = text.rsplit_once(':').ok_or_else(|| TopicError::Spec(text.to_owned()))?;
        let partitions = partitions.parse().map_err(|_not_a_number| TopicError::Spec(text.to_owned()))?;
        Self::new(name, partitions)
    }
}

/// The partitions of one topic, in order.
#[derive(Debug)]
pub(crate) struct Topic {
    partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }
}

/// All topics.
#[derive(Debug)]
pub(crate) struct Topics {
    directory: PathBuf,
    by_name: RwLock<BTreeMap<String, Arc<Topic>>>,
}

impl Topics {
    /// Opens every topic found under `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Data { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let topics = Self { directory: directory.to_owned(), by_name: RwLock::default() };
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let found =
                (0..PARTITIONS_MAX).take_while(|index| log_path(&entry.path(), *index).exists()).count();
            if found > 0 {
                topics.create(&TopicSpec::new(&name, found)?)?;
            }
        }
        Ok(topics)
    }

    /// Creates a topic, or adds partitions to the one of that name. Returns false if it was there already.
    ///
    /// # Errors
    /// When it has more partitions already, when there would be too many, or when a file cannot be opened.
    pub(crate) fn create(&self, spec: &TopicSpec) -> Result<bool, Error> {
        let mut topics = self.by_name.write();
        let mut partitions =
            topics.get(&spec.name).map_or_else(Vec::new, |existing| existing.partitions.clone());
        if partitions.len() == spec.partitions {
            return Ok(false);
        }
        if partitions.len() > spec.partitions {
            let (name, has) = (spec.name.clone(), partitions.len());
            return Err(TopicError::Shrink { name, has, asked: spec.partitions }.into());
        }
        let total: usize = topics.values().map(|topic| topic.partitions.len()).sum();
        if total - partitions.len() + spec.partitions > PARTITIONS_MAX {
            return Err(TopicError::TooMany { max: PARTITIONS_MAX }.into());
        }
        let directory = self.directory.join(&spec.name);
        fs::create_dir_all(&directory).map_err(|source| Error::Data { path: directory.clone(), source })?;
        for index in partitions.len()..spec.partitions {
            partitions.push(Arc::new(Partition::open(&log_path(&directory, index))?));
        }
        topics.insert(spec.name.clone(), Arc::new(Topic { partitions }));
        Ok(true)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.read().get(name).cloned()
    }

    pub(crate) fn partition(&self, name: &str, index: i32) -> Option<Arc<Partition>> {
        self.by_name.read().get(name)?.partition(index).cloned()
    }

    /// All topics by name.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Topic>)> {
        self.by_name.read().iter().map(|(name, topic)| (name.clone(), Arc::clone(topic))).collect()
    }
}

fn log_path(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("{index}.log"))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{TopicSpec, Topics};

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, usize)>) {
        let got = text.parse::<TopicSpec>().ok();
        assert_eq!(got.as_ref().map(|spec| (spec.name(), spec.partitions())), expected, "{text:?}");
    }

    #[test]
    fn specs_are_checked() {
        check("telemetry:4", Some(("telemetry", 4)));
        check("a.b-c_D9:1", Some(("a.b-c_D9", 1)));
        for bad in ["telemetry", "telemetry:", "telemetry:0", "telemetry:513", "a/b:1", "..:1", ":1", "x:-1"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn topics_are_found_again_and_only_grow() {
        let directory = TempDir::new().unwrap();
        let spec = |text: &str| text.parse::<TopicSpec>().unwrap();
        let topics = Topics::open(directory.path()).unwrap();
        assert!(topics.create(&spec("t:2")).unwrap());
        assert!(!topics.create(&spec("t:2")).unwrap());
        let topics = Topics::open(directory.path()).unwrap();
        assert_eq!(topics.get("t").unwrap().partitions().len(), 2);
        assert!(topics.create(&spec("t:3")).unwrap());
        assert!(topics.create(&spec("t:1")).is_err());
        assert!(topics.create(&spec("u:510")).is_err(), "there would be 513 partitions");
    }
}
