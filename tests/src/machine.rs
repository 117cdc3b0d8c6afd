//! A machine with a real systemd: the first process of namespaces of its own, with units of its own only.
//!
//! It shares the network and the file system of this machine, and sees its own `/run`, `/dev`, `/proc` and
//! control groups; what belongs to the kernel is read-only there. Its mounts are nobody else's, and it and
//! everything that it started are killed with the value that stands for it. It needs root and a mounted
//! cgroup2; where it cannot be, [`Machine::boot`] says why.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::itself::{children_of, program_of};
use crate::process::{Ended, run_to_end, until, write};

/// What the first process starts.
const TARGET: &str = "test.target";
/// How long the first process may take to answer.
const BOOT: Duration = Duration::from_secs(30);
/// Where distributions keep it.
const PLACES: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// Moves itself into the group `$1`, and becomes the root of a hierarchy there.
const OUTSIDE: &str = r#"
set -e
echo 0 > "$1/cgroup.procs"
exec unshare --cgroup -- sh -c "$4" sh "$2" "$3"
"#;

/// Makes a machine of fresh namespaces, and starts the systemd `$2` on the units in `$1`.
const INSIDE: &str = r#"
set -e
mount -t tmpfs -o mode=755,size=16m tmpfs /run
mkdir /run/dev
mount -t tmpfs -o mode=755,size=1m tmpfs /run/dev
for device in null zero full random urandom tty; do
    : > "/run/dev/$device"
    mount --bind "/dev/$device" "/run/dev/$device"
done
mount --move /run/dev /dev
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=updraft-test \
    SYSTEMD_UNIT_PATH="$1/units" SYSTEMD_GENERATOR_PATH="$1/none" SYSTEMD_LOG_TARGET=null \
    "$2" --system --unit=test.target
"#;

/// A machine; it ends with the value.
#[derive(Debug)]
pub struct Machine {
    keeper: Child,
    init: u32,
    // Removed after the others are gone: fields end in this order, and after the value itself.
    group: Group,
}

/// A control group that is removed with the value.
#[derive(Debug)]
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let started = Instant::now();
        // Its last processes may still be on their way out.
        while remove_group(&self.0).is_err() && started.elapsed() < BOOT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove_group(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The mount points of the one hierarchy of control groups.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(2) == Some(&"cgroup2"))
        .filter_map(|fields| fields.get(1).map(PathBuf::from))
        .collect()
}

impl Machine {
    /// A machine with these units beside those without which systemd starts nothing. `scratch` is its own.
    ///
    /// # Errors
    /// Why there can be none here.
    ///
    /// # Panics
    /// Where `scratch` cannot be written.
    pub fn boot(scratch: &Path, units: &[(&str, String)]) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root makes namespaces and mounts in them".to_owned());
        }
        let systemd = PLACES.into_iter().find(|place| Path::new(place).exists()).ok_or("there is no systemd")?;
        let hierarchy = hierarchies().into_iter().next().ok_or("no cgroup2 is mounted")?;
        let name = format!("updraft-test-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let group = hierarchy.join(name);
        fs::create_dir(&group).map_err(|error| format!("no control group can be made: {error}"))?;
        let group = Group(group);
        for name in ["sysinit.target", "basic.target", "shutdown.target", TARGET] {
            write(&scratch.join("units").join(name), "[Unit]\nDefaultDependencies=no\n");
        }
        for (name, text) in units {
            write(&scratch.join("units").join(name), text);
        }
        // Whatever becomes of this process, the keeper is killed with it, and with the keeper all that it keeps.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--kill-child", "--fork", "--pid", "--mount-proc", "--mount"]);
        command.args(["--propagation", "private", "--ipc", "--uts", "sh", "-c", OUTSIDE, "sh"]);
        command.arg(&group.0).arg(scratch).args([systemd, INSIDE]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let keeper = command.spawn().map_err(|error| format!("setpriv cannot be run: {error}"))?;
        Self { keeper, init: 0, group }.wait_for_boot(systemd)
    }

    fn wait_for_boot(mut self, systemd: &str) -> Result<Self, String> {
        let started = Instant::now();
        let systemd = fs::canonicalize(systemd).map_err(|error| error.to_string())?;
        loop {
            if self.keeper.try_wait().is_ok_and(|ended| ended.is_some()) {
                let mut said = String::new();
                if let Some(mut pipe) = self.keeper.stderr.take() {
                    // What cannot be read is not told.
                    let _ = pipe.read_to_string(&mut said);
                }
                return Err(format!("systemd could not be started: {}", said.trim()));
            }
            let child = children_of(self.keeper.id()).into_iter().next();
            if let Some(init) = child.filter(|&pid| program_of(pid).as_deref() == Some(systemd.as_path())) {
                self.init = init;
                let answer = self.systemctl(["is-active", TARGET]);
                if answer.code == Some(0) {
                    return Ok(self);
                }
            }
            if started.elapsed() > BOOT {
                return Err(format!("systemd did not come up within {} s", BOOT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `systemctl` there, to its end.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn systemctl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ended {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--ipc", "--uts", "systemctl"]);
        run_to_end(command.args(&arguments), &format!("systemctl {arguments:?}"))
    }

    /// A property of a unit.
    ///
    /// # Panics
    /// Where systemd does not know it.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let answer = self.systemctl(["show", "--value", "--property", name, unit]).succeeded();
        answer.stdout.trim().to_owned()
    }

    /// Waits until a property of a unit has this value.
    ///
    /// # Panics
    /// Where it takes too long.
    pub fn until(&self, unit: &str, name: &str, value: &str) {
        until(&format!("{name}={value} of {unit}"), || (self.property(unit, name) == value).then_some(()));
    }

    /// The processes of a unit, as this machine counts them.
    pub fn processes(&self, unit: &str) -> Vec<u32> {
        let path = self.group.0.join("system.slice").join(unit).join("cgroup.procs");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process takes every other one with it, and the keeper the first.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
