//! Where the kernel says how much memory is used, and how much may be.
//!
//! Control groups of version 2 and of version 1 (memory.rst and cgroup-v2.rst of
//! the Linux documentation). A group is within others, whose limits hold too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::config::MemoryLimit;

const GROUPS: &str = "/sys/fs/cgroup";
/// Of version 1: no limit is the largest number of pages, in bytes.
const NO_LIMIT: u64 = 1 << 60;

#[derive(Debug)]
pub enum Source {
    /// The limit of this process alone.
    Own(u64),
    /// Itself and those it is within.
    Groups(Vec<Group>),
}

#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    names: &'static Names,
}

/// How files of a version are called.
#[derive(Debug)]
struct Names {
    most: &'static str,
    used: &'static str,
    /// Of `memory.stat`, what the kernel can take back, of the groups within too.
    spare: &'static [&'static str],
}

const SECOND: Names = Names {
    most: "memory.max",
    used: "memory.current",
    spare: &["inactive_file", "active_file", "slab_reclaimable"],
};
const FIRST: Names = Names {
    most: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    spare: &["total_inactive_file", "total_active_file"],
};

impl Source {
    /// `None`: nothing limits it.
    pub fn find(limit: MemoryLimit) -> Option<Self> {
        match limit {
            MemoryLimit::None => None,
            MemoryLimit::Own(most) => Some(Self::Own(most)),
            MemoryLimit::Group => {
                let own = fs::read_to_string("/proc/self/cgroup").ok()?;
                Self::of_groups(&own, Path::new(GROUPS))
            }
        }
    }

    /// Of what `/proc/self/cgroup` says, where groups are mounted at `root`.
    fn of_groups(own: &str, root: &Path) -> Option<Self> {
        let of_memory = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (kinds, path) = (parts.next()?, parts.next()?);
            kinds.split(',').any(|kind| kind == "memory").then_some(path)
        });
        let unified = || own.lines().find_map(|line| line.strip_prefix("0::"));
        let (root, path, names) = match of_memory {
            Some(path) => (root.join("memory"), path, &FIRST),
            None => (root.to_owned(), unified()?, &SECOND),
        };
        // In a container the path may be the one outside, where only the root shows.
        let inner = root.join(path.trim_start_matches('/'));
        let leaf = if inner.join(names.used).exists() { inner } else { root.clone() };
        let folders = leaf.ancestors().take_while(|folder| folder.starts_with(&root));
        let groups = folders.map(|folder| Group { folder: folder.to_owned(), names });
        // Also those without a limit, which may get one.
        Some(Self::Groups(groups.collect()))
    }

    /// Bytes that are used, and that may be: of the limit that is nearest.
    pub fn sample(&self) -> Option<(u64, u64)> {
        match self {
            Self::Own(most) => {
                let status = fs::read_to_string("/proc/self/status").ok()?;
                Some((anonymous(&status)?, *most))
            }
            Self::Groups(groups) => groups
                .iter()
                .filter_map(|group| Some((group.used()?, group.most()?)))
                .min_by_key(|(used, most)| most.saturating_sub(*used)),
        }
    }
}

impl Group {
    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok()
    }

    /// `None`: there is no limit.
    fn most(&self) -> Option<u64> {
        let most = self.read(self.names.most)?.trim().parse().ok()?;
        (most < NO_LIMIT).then_some(most)
    }

    /// Without what the kernel could take back.
    fn used(&self) -> Option<u64> {
        let used: u64 = self.read(self.names.used)?.trim().parse().ok()?;
        let stat = self.read("memory.stat")?;
        let spare = stat.lines().filter_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            self.names.spare.contains(&name).then(|| bytes.parse::<u64>().ok()).flatten()
        });
        Some(used.saturating_sub(spare.sum()))
    }
}

/// What belongs to no file, in bytes.
fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, folder: &str, files: &[(&str, &str)]) {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    const STAT: &str =
        "anon 700\nfile 300\ninactive_file 200\nactive_file 70\nshmem 0\nslab_reclaimable 30\n";
    const STAT_1: &str =
        "inactive_file 1\nactive_file 1\ntotal_inactive_file 200\ntotal_active_file 100\n";

    #[test]
    fn the_limit_that_is_nearest_counts_and_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        let second =
            |most, used| [("memory.max", most), ("memory.current", used), ("memory.stat", STAT)];
        group(root.path(), "", &[("memory.stat", STAT)]);
        group(root.path(), "outer", &second("2000\n", "1900\n"));
        group(root.path(), "outer/none", &second("max\n", "1000\n"));
        group(root.path(), "outer/inner", &second("1000\n", "1000\n"));
        for (own, expected) in [
            ("0::/outer/inner\n", Some((700, 1000))),
            ("0::/outer/none\n", Some((1600, 2000))),
            ("0::/\n", None),
            ("1:name=systemd:/outer\n", None),
        ] {
            let source = Source::of_groups(own, root.path());
            assert_eq!(source.and_then(|source| source.sample()), expected, "{own}");
        }
    }

    #[test]
    fn groups_of_the_first_version_are_read_by_their_own_names() {
        let root = tempfile::tempdir().unwrap();
        let first = |most, used| {
            [
                ("memory.limit_in_bytes", most),
                ("memory.usage_in_bytes", used),
                ("memory.stat", STAT_1),
            ]
        };
        group(root.path(), "memory", &first("9223372036854771712\n", "5000\n"));
        group(root.path(), "memory/box", &first("1000\n", "950\n"));
        for (own, expected) in [
            ("4:memory:/box\n0::/\n", Some((650, 1000))),
            ("4:cpu,memory:/box\n", Some((650, 1000))),
            // The path outside of a container, which it does not see.
            ("4:memory:/docker/0123\n", None),
        ] {
            let source = Source::of_groups(own, root.path());
            assert_eq!(source.and_then(|source| source.sample()), expected, "{own}");
        }
    }

    #[test]
    fn memory_of_its_own_is_what_belongs_to_no_file() {
        let status = "Name:\ttollgate\nVmRSS:\t   30000 kB\nRssAnon:\t    2048 kB\n";
        assert_eq!(anonymous(status), Some(2048 * 1024));
        let (bytes, most) = Source::Own(7).sample().unwrap();
        assert!(bytes > 4096 && most == 7, "{bytes}");
    }
}
