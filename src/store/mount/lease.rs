//! After how long a file server gives a silent client's locks away: what the kernel was told, what the store's URL
//! says (`?server-lease=`), or a guess that is shorter than any in use.
//!
//! A job must be dead before the server gives its lock away, so where two of them are known the shorter one counts.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::Mount;
use crate::duration;
use crate::kernel_file;
use crate::lease::timing::Timing;

/// The lease to go by where nobody tells the server's: shorter than any in use but on test servers.
pub const ASSUMED: Duration = Duration::from_secs(30);

/// Where a lease is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The kernel heard it from the server.
    Kernel,
    /// `?server-lease=`.
    Url,
    /// Nobody says.
    Assumed,
}

/// A server's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLease {
    /// How long.
    pub length: Duration,
    /// Who says so.
    pub source: Source,
    /// What the URL says, if that is longer and so does not count.
    pub overruled: Option<Duration>,
}

impl ServerLease {
    /// Why nothing is started under it, if it is shorter than a job's end takes.
    pub fn too_short(&self) -> String {
        format!(
            "the file server gives a silent machine's locks away after {self}, and no job can be ended and known to be gone so fast: it takes {}; have the server give longer leases",
            duration::text(Timing::MIN)
        )
    }
}

impl fmt::Display for ServerLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::Kernel => "as the server told this kernel, /proc/self/mountstats",
            Source::Url => "as the store's URL says, ?server-lease",
            Source::Assumed => {
                "assumed, as this kernel does not tell: add ?server-lease=DURATION to the store's URL"
            }
        };
        write!(f, "{} ({source})", duration::text(self.length))
    }
}

/// The lease of the server behind `path`'s mount, which is not a local one; `given`: the URL's. `None`: it gives nothing away.
pub fn behind(path: &Path, given: Option<Duration>) -> Option<ServerLease> {
    let mount = super::of(path);
    let is_4 = mount.as_ref().and_then(Mount::nfs) == Some(4);
    let told = mount.filter(|_| is_4).and_then(|mount| {
        let stats = kernel_file::text("/proc/self/mountstats").ok()?;
        in_mountstats(&stats, &mount.point)
    });
    decide(is_4, told, given)
}

fn decide(is_4: bool, told: Option<Duration>, given: Option<Duration>) -> Option<ServerLease> {
    let of = |length, source, overruled| ServerLease {
        length,
        source,
        overruled,
    };
    match (told, given) {
        (Some(told), Some(given)) if given > told => Some(of(told, Source::Kernel, Some(given))),
        (Some(told), None) => Some(of(told, Source::Kernel, None)),
        (_, Some(given)) => Some(of(given, Source::Url, None)),
        (None, None) => is_4.then(|| of(ASSUMED, Source::Assumed, None)),
    }
}

/// `lease_time=` in seconds, in the part of /proc/self/mountstats that is about `point`.
pub fn in_mountstats(mountstats: &str, point: &Path) -> Option<Duration> {
    let begins = |line: &&str| line.starts_with("device ");
    let ours = |line: &str| {
        let rest = line.split_once(" mounted on ").map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split_once(" with fstype "))
            .is_some_and(|(at, _)| Path::new(&super::unescape(at)) == point)
    };
    // the newest mount at a point covers the others there
    let lines: Vec<&str> = mountstats.lines().collect();
    let at = lines.iter().rposition(|line| begins(line) && ours(line))?;
    let mut fields = lines[at + 1..]
        .iter()
        .take_while(|line| !begins(line))
        .flat_map(|line| line.split([',', ' ', '\t']));
    let seconds = fields
        .find_map(|field| field.strip_prefix("lease_time="))?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const STATS: &str = "device /dev/vda mounted on / with fstype ext4
device srv:/x mounted on /other with fstype nfs4 statvers=1.1
\tnfsv4:\tbm0=0xf,lease_time=10,lease_expired=0
device srv:/data mounted on /mnt with fstype nfs4 statvers=1.1
\tcaps:\tcaps=0x3
\tnfsv4:\tbm0=0xf,sessions,lease_time=90,lease_expired=0
device srv:/y mounted on /a\\040b with fstype nfs4 statvers=1.1
\tnfsv4:\tlease_time=20
device srv:/z mounted on /other with fstype nfs4 statvers=1.1
\tnfsv4:\tbm0=0xf,lease_time=60
device srv:/v mounted on /three with fstype nfs statvers=1.1
\tcaps:\tcaps=0x3
";

    #[rstest]
    #[case("/mnt", Some(90))]
    #[case::covered("/other", Some(60))]
    #[case::escaped("/a b", Some(20))]
    #[case::version_3("/three", None)]
    #[case("/", None)]
    #[case("/nowhere", None)]
    fn the_servers_lease_is_read(#[case] point: &str, #[case] seconds: Option<u64>) {
        assert_eq!(
            in_mountstats(STATS, Path::new(point)),
            seconds.map(Duration::from_secs)
        );
    }

    #[test]
    fn a_lease_that_is_too_short_says_so() {
        let lease = decide(true, Some(Duration::from_secs(1)), None).unwrap();
        let said = lease.too_short();
        assert!(
            said.contains("away after 1s (") && said.contains("it takes 2s"),
            "{said}"
        );
    }

    #[rstest]
    #[case::told(true, Some(90), None, Some((90, Source::Kernel, None)))]
    #[case::shorter_in_the_url(true, Some(90), Some(20), Some((20, Source::Url, None)))]
    #[case::longer_in_the_url(true, Some(10), Some(90), Some((10, Source::Kernel, Some(90))))]
    #[case::the_same_in_the_url(true, Some(90), Some(90), Some((90, Source::Url, None)))]
    #[case::only_the_url(true, None, Some(90), Some((90, Source::Url, None)))]
    #[case::nobody_says(true, None, None, Some((30, Source::Assumed, None)))]
    #[case::gives_nothing_away(false, None, None, None)]
    #[case::another_file_system(false, None, Some(60), Some((60, Source::Url, None)))]
    fn the_shorter_one_counts(
        #[case] is_4: bool,
        #[case] told: Option<u64>,
        #[case] given: Option<u64>,
        #[case] expected: Option<(u64, Source, Option<u64>)>,
    ) {
        let seconds = |n: Option<u64>| n.map(Duration::from_secs);
        let lease = decide(is_4, seconds(told), seconds(given));
        let lease = lease.map(|l| (l.length, l.source, l.overruled));
        let expected = expected.map(|(length, source, overruled)| {
            (Duration::from_secs(length), source, seconds(overruled))
        });
        assert_eq!(lease, expected);
    }
}
