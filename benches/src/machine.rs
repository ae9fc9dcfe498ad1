//! Where figures were taken: without this they mean little.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine, the source and the day.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Processors the system shows.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// File system and device of the folder the gateway wrote to.
    pub file_system: String,
    /// One-minute load average before the run; above 0 others were at work.
    pub load_average: String,
    /// Commit of the checkout, with `-dirty` when files differ from it.
    pub commit: String,
    /// Day and time, UTC.
    pub date: String,
}

impl Machine {
    /// Looks at this machine; what cannot be found out is `unknown`.
    pub fn look(folder: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: or_unknown(model(&cpuinfo)),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            kernel: or_unknown(Some(release.trim())),
            file_system: or_unknown(
                output("df", &["--output=fstype,source", "--", &folder.to_string_lossy()])
                    .as_deref()
                    .and_then(last_line),
            ),
            load_average: or_unknown(load.split_whitespace().next()),
            commit: or_unknown(
                output("git", &["describe", "--always", "--dirty", "--exclude=*"])
                    .as_deref()
                    .and_then(last_line),
            ),
            date: or_unknown(output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).as_deref().and_then(last_line)),
        }
    }

    /// One line for the head of a table.
    pub fn line(&self) -> String {
        format!(
            "{}, {} cores, kernel {}, {}, load average {} before the run; commit {}, {}",
            self.cpu, self.cores, self.kernel, self.file_system, self.load_average, self.commit, self.date
        )
    }
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim())
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn or_unknown(found: Option<&str>) -> String {
    found.filter(|text| !text.is_empty()).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_in_cpuinfo() {
        assert_eq!(model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), Some("Some CPU @ 2 GHz"));
        assert_eq!(model("processor\t: 0\n"), None);
    }

    #[test]
    fn what_is_not_known_is_said_to_be() {
        assert_eq!(or_unknown(None), "unknown");
        assert_eq!(or_unknown(Some("")), "unknown");
        assert_eq!(or_unknown(last_line("Type Filesystem\next4 /dev/vda\n")), "ext4 /dev/vda");
    }
}
