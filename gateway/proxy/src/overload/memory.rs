//! How much of its control group's memory is in use, for versions 1 and 2 of control groups.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 writes a number near this where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// Bytes in use, and how many may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Usage {
    pub(super) used: u64,
    /// Zero where there is no limit.
    pub(super) limit: u64,
}

impl Usage {
    /// Zero where there is no limit.
    pub(super) fn percent(self) -> u8 {
        let percent = self.used.saturating_mul(100).checked_div(self.limit);
        u8::try_from(percent.unwrap_or(0).min(100)).unwrap_or(100)
    }
}

/// The files that tell.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ControlGroup {
    usage: PathBuf,
    limit: PathBuf,
    /// Holds `key`: pages of files that nobody used lately. The kernel takes them back before it
    /// kills anybody, so they are not counted.
    stat: PathBuf,
    key: &'static str,
}

impl ControlGroup {
    /// The control group of this process, if it can be read.
    pub(super) fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let found = candidates(&groups, Path::new(ROOT));
        found.into_iter().find(|group| group.usage.is_file())
    }

    /// `None` if the files do not tell.
    pub(super) fn usage(&self) -> Option<Usage> {
        // The limit may have been taken away since.
        let limit = number(&self.limit).filter(|&limit| limit > 0 && limit < NO_LIMIT);
        let stat = fs::read_to_string(&self.stat).unwrap_or_default();
        let used = number(&self.usage)?.saturating_sub(inactive(&stat, self.key));
        Some(Usage {
            used,
            limit: limit.unwrap_or(0),
        })
    }
}

/// What the machine has, in bytes.
pub(super) fn of_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Where the files may be, from what `/proc/self/cgroup` says. In a container the group's own path
/// is often not visible, and its files stand at the root.
fn candidates(groups: &str, root: &Path) -> Vec<ControlGroup> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            found.extend([root.join(path), root.to_owned()].map(|dir| ControlGroup {
                usage: dir.join("memory.current"),
                limit: dir.join("memory.max"),
                stat: dir.join("memory.stat"),
                key: "inactive_file",
            }));
        } else if controllers.split(',').any(|name| name == "memory") {
            let root = root.join("memory");
            found.extend([root.join(path), root].map(|dir| ControlGroup {
                usage: dir.join("memory.usage_in_bytes"),
                limit: dir.join("memory.limit_in_bytes"),
                stat: dir.join("memory.stat"),
                key: "total_inactive_file",
            }));
        }
    }
    found
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn inactive(stat: &str, key: &str) -> u64 {
    let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
    let value = lines.find(|(name, _)| *name == key);
    value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let root = Path::new("/r");
        let one = candidates("4:cpu,cpuacct:/x\n3:memory:/a/b\n", root);
        assert_eq!(
            one[0].usage,
            Path::new("/r/memory/a/b/memory.usage_in_bytes")
        );
        assert_eq!(one[1].usage, Path::new("/r/memory/memory.usage_in_bytes"));
        let two = candidates("0::/a.slice/b\n", root);
        assert_eq!(two[0].limit, Path::new("/r/a.slice/b/memory.max"));
        assert_eq!(two[1].limit, Path::new("/r/memory.max"));
        assert_eq!(candidates("nonsense", root), []);
    }

    #[test]
    fn pages_of_files_do_not_count() {
        let dir = std::env::temp_dir().join(format!("postern-memory-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let group = ControlGroup {
            usage: dir.join("usage"),
            limit: dir.join("limit"),
            stat: dir.join("stat"),
            key: "inactive_file",
        };
        let write = |usage: &str, limit: &str, stat: &str| {
            fs::write(&group.usage, usage).unwrap();
            fs::write(&group.limit, limit).unwrap();
            fs::write(&group.stat, stat).unwrap();
        };
        for (usage, limit, stat, want) in [
            ("950\n", "1000\n", "inactive_file 0\n", Some(95)),
            (
                "950\n",
                "1000\n",
                "active_file 900\ninactive_file 450\n",
                Some(50),
            ),
            ("950\n", "max\n", "", Some(0)),
            ("950\n", "9223372036854771712\n", "", Some(0)),
            ("2000\n", "1000\n", "", Some(100)),
            ("", "1000\n", "", None),
        ] {
            write(usage, limit, stat);
            assert_eq!(
                group.usage().map(Usage::percent),
                want,
                "{usage:?} {limit:?} {stat:?}"
            );
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
