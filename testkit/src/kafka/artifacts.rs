//! The jars of the broker: named in `testkit/kafka`, fetched by Maven, each checked against its SHA-256.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::KafkaError;

/// The version of Apache Kafka.
pub const VERSION: &str = "4.1.1";

/// The oldest Java that runs it.
const JAVA_MIN: u32 = 17;
const POM: &str = include_str!("../../kafka/pom.xml");
/// What `sha256sum` checks.
const SUMS: &str = include_str!("../../kafka/jars.sha256");
/// The goal that copies what a project depends on, with its version.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// What has to be installed first, in words for people; `None` when everything is there.
///
/// Maven counts only as long as the jars are not in the cache.
#[must_use]
pub fn missing() -> Option<String> {
    let found = java_major();
    if found.is_none_or(|major| major < JAVA_MIN) {
        let found = found.map_or_else(|| "none".to_owned(), |major| major.to_string());
        return Some(format!(
            "Java {JAVA_MIN} or newer is needed (found: {found}); on Debian: apt-get install -y --no-install-recommends openjdk-17-jre-headless maven"
        ));
    }
    let cached = cache().is_some_and(|cache| cache.is_dir());
    if !cached && run(Command::new("mvn").arg("-v")).is_err() {
        return Some(
            "Maven is needed to fetch Apache Kafka; on Debian: apt-get install -y --no-install-recommends maven"
                .to_owned(),
        );
    }
    None
}

/// Makes sure that the jars are in the cache and are the ones named here. Gives the class path.
///
/// They are kept in `penstock/kafka-VERSION` below `XDG_CACHE_HOME`, or `.cache` in the home folder.
///
/// # Errors
/// When they cannot be fetched, or one differs.
pub fn class_path() -> Result<String, KafkaError> {
    let cache =
        cache().ok_or_else(|| KafkaError::Artifacts("neither HOME nor XDG_CACHE_HOME is set".to_owned()))?;
    if !cache.is_dir() {
        fetch(&cache)?;
    }
    check(&cache)?;
    let jars: Vec<String> = names().map(|name| cache.join(name).to_string_lossy().into_owned()).collect();
    Ok(jars.join(":"))
}

fn cache() -> Option<PathBuf> {
    let below = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let below = below.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(below.join("penstock").join(format!("kafka-{VERSION}")))
}

/// Fetches into a folder beside the cache, which takes its name only when everything in it was checked.
fn fetch(cache: &Path) -> Result<(), KafkaError> {
    let unfinished = cache.with_added_extension(format!("unfinished-{}", std::process::id()));
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| KafkaError::File { path, source }
    };
    fs::create_dir_all(&unfinished).map_err(file(&unfinished))?;
    let pom = unfinished.join("pom.xml");
    fs::write(&pom, POM).map_err(file(&pom))?;
    let fetched = run(Command::new("mvn")
        .current_dir(&unfinished)
        .args(["--batch-mode", "--quiet", "--strict-checksums", COPY, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", unfinished.display())));
    fetched.and_then(|_| check(&unfinished))?;
    match fs::rename(&unfinished, cache) {
        // Somebody else was faster; theirs is checked by whoever uses it.
        Err(_) if cache.is_dir() => fs::remove_dir_all(&unfinished).map_err(file(&unfinished)),
        renamed => renamed.map_err(file(cache)),
    }
}

fn check(folder: &Path) -> Result<(), KafkaError> {
    let mut command = Command::new("sha256sum");
    command.args(["--check", "--quiet", "--strict", "-"]).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |why: String| KafkaError::Artifacts(format!("{}: {why}", folder.display()));
    let mut child = command.spawn().map_err(|error| failed(format!("sha256sum: {error}")))?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(SUMS.as_bytes()));
    let output = child.wait_with_output().map_err(|error| failed(format!("sha256sum: {error}")))?;
    written.map_err(|error| failed(format!("sha256sum: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let wrong = String::from_utf8_lossy(&output.stdout);
    let said = wrong.lines().take(3).collect::<Vec<_>>().join(", ");
    Err(failed(format!(
        "jars differ from testkit/kafka/jars.sha256; remove the folder to fetch them again ({said})"
    )))
}

fn names() -> impl Iterator<Item = &'static str> {
    SUMS.lines().filter_map(|line| line.split_whitespace().nth(1))
}

/// The first number of what `java -version` says: 17 of `openjdk version "17.0.15" …`.
fn java_major() -> Option<u32> {
    let output = Command::new("java").arg("-version").stdin(Stdio::null()).output().ok()?;
    major(&String::from_utf8_lossy(&output.stderr))
}

fn major(said: &str) -> Option<u32> {
    let (_, version) = said.split_once("version \"")?;
    let (version, _) = version.split_once('"')?;
    version.split(['.', '-', '+']).next()?.parse().ok()
}

/// Runs a program to its end. Gives its stdout.
pub(super) fn run(command: &mut Command) -> Result<String, KafkaError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |why: String| KafkaError::Program { name: name.clone(), why };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(failed(format!("ended with {}: {}", output.status, said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_version_and_sums_are_of_one_release() {
        assert!(POM.contains(&format!("<version>{VERSION}</version>")));
        assert!(names().any(|name| name == format!("kafka_2.13-{VERSION}.jar")));
        assert!(SUMS.lines().all(|line| line.split_whitespace().next().is_some_and(|sum| sum.len() == 64)));
    }

    #[test]
    fn a_jar_that_differs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in names() {
            fs::write(folder.path().join(name), "not a jar").unwrap();
        }
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.contains("differ") && error.contains("FAILED"), "{error}");
    }

    #[test]
    fn versions_of_java_are_understood() {
        let check = |said: &str, expected| assert_eq!(major(said), expected, "{said}");
        check("openjdk version \"17.0.15\" 2025-04-15\n", Some(17));
        check("openjdk version \"21\" 2023-09-19\n", Some(21));
        check("openjdk version \"25-ea\" 2025-09-16\n", Some(25));
        check("java: command not found", None);
    }
}
