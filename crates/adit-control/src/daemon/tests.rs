//! The disk fails, or the daemon is killed, at every step of apply, confirm and rollback.
//!
//! Afterwards the configuration that was confirmed last runs, or one that was asked for since. What
//! was not confirmed in time does not run, unless its file was changed since.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_config::Config;
use adit_dataplane::clock::Clock;
use adit_tunnel::Instant;

use crate::api::apply::ApplyRequest;
use crate::daemon::capabilities::KeptCapabilities;
use crate::daemon::changes::Changes;
use crate::daemon::chosen::{Chosen, choose};
use crate::daemon::kept_files::KeptFiles;
use crate::daemon::shared_overlay::{self, SharedOverlay};
use crate::overlay::Overlay;
use crate::overlay::tests::world::World;
use crate::state::durable_file::faults::{self, Fault};
use crate::state::paths::RuntimePaths;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EROFS: i32 = 30;
/// How long a change may wait to be confirmed, in seconds.
const TIME: u64 = 60;
const FILE: &str = "/etc/adit/a.toml";

/// The file in one of its versions, which differ in the peer's network.
fn text(version: u8) -> String {
    format!(
        "[site]\nname = \"a\"\nunderlay = \"10.1.1.1\"\nnetworks = [\"172.16.17.0/24\"]\n\
         dataplane = \"userspace\"\n\n[[peer]]\nname = \"b\"\nunderlay = \"10.1.1.2\"\n\
         networks = [\"192.168.{version}.0/24\"]\n"
    )
}

fn config(version: u8) -> Config {
    Config::parse(FILE, &text(version)).expect("it is valid")
}

fn version_of(running: &Config) -> u8 {
    (1..=3).find(|version| config(*version) == *running).expect("it is one of these")
}

/// What a user, or the clock, does.
#[derive(Clone, Copy, Debug)]
enum Action {
    Apply(u8),
    ApplyToConfirm(u8),
    Confirm,
    /// The time to confirm passes.
    Time,
}
use Action::{Apply, ApplyToConfirm, Confirm, Time};

/// Everything that can follow a start with version 1, up to the point at which it repeats.
const STORIES: [&[Action]; 14] = [
    &[ApplyToConfirm(2)],
    &[ApplyToConfirm(2), Confirm],
    &[ApplyToConfirm(2), Time],
    &[ApplyToConfirm(2), Apply(3)],
    &[ApplyToConfirm(2), Apply(3), Time],
    &[ApplyToConfirm(2), Apply(3), Confirm],
    &[ApplyToConfirm(2), ApplyToConfirm(3)],
    &[ApplyToConfirm(2), ApplyToConfirm(3), Time],
    &[ApplyToConfirm(2), ApplyToConfirm(3), Confirm],
    &[ApplyToConfirm(2), Apply(1)],
    &[ApplyToConfirm(2), Time, Apply(3)],
    &[ApplyToConfirm(2), Time, ApplyToConfirm(2), Confirm],
    &[Apply(2), ApplyToConfirm(3), Time],
    &[ApplyToConfirm(2), Confirm, ApplyToConfirm(3), Time],
];

/// What has to hold.
#[derive(Debug)]
struct Model {
    /// What happens, for whoever reads a failure.
    what: String,
    confirmed: u8,
    /// What was asked for since then, whether or not it succeeded.
    unconfirmed: Vec<u8>,
    promise: Promise,
    /// What runs under the promise: a file that was changed since is another.
    applied: Vec<u8>,
    /// What the file says that users edit and apply.
    file: u8,
}

/// Whether what was asked for is rolled back unless it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    No,
    /// An answer said so.
    Made,
    /// A request to confirm was not answered with success: it may be on the disk or not.
    Open,
}

/// A daemon on a machine of its own, whose time is `now`.
struct Daemon {
    changes: Changes,
    overlay: SharedOverlay,
    now: Instant,
}

impl Daemon {
    /// Starts it with this version of the file.
    fn start(version: u8, paths: &RuntimePaths, now: Instant) -> Self {
        let file = config(version);
        let chosen = choose(&file, Path::new(FILE), paths, now);
        let overlay = World::model().bring_up(&chosen.config).expect("nothing is missing");
        Self::around(overlay, chosen, paths, now)
    }

    fn around(overlay: Overlay, chosen: Chosen, paths: &RuntimePaths, now: Instant) -> Self {
        let overlay: SharedOverlay = Arc::new(Mutex::new(Some(overlay)));
        let snapshots = Arc::new(shared_overlay::publisher(&overlay));
        let capabilities = KeptCapabilities::of([&chosen.config]);
        let (shared, paths, file) = (Arc::clone(&overlay), paths.clone(), FILE.into());
        let kept_files = KeptFiles::default();
        let changes = Changes::new(shared, snapshots, capabilities, paths, file, chosen, kept_files);
        Self { changes, overlay, now }
    }

    /// The version that runs.
    fn runs(&self) -> u8 {
        let overlay = shared_overlay::lock(&self.overlay);
        version_of(overlay.as_ref().expect("it is up").config())
    }

    fn act(&mut self, action: Action, model: &mut Model) {
        let request = |version, confirm_seconds| ApplyRequest {
            file: FILE.into(),
            text: text(version),
            confirm_seconds,
        };
        let (before, now) = (self.runs(), self.now);
        match action {
            Apply(version) => {
                model.file = version;
                let is_applied = self.changes.apply(&request(version, None), now).is_ok();
                assert!(
                    faults::is_killed() || self.runs() == if is_applied { version } else { before },
                    "{model:?}"
                );
                if is_applied && (model.promise == Promise::No || version == model.confirmed) {
                    model.settle(version);
                } else {
                    model.unconfirmed.push(version);
                }
                if is_applied {
                    model.applied.push(version);
                }
            }
            ApplyToConfirm(version) => {
                model.file = version;
                model.unconfirmed.push(version);
                let is_applied = self.changes.apply(&request(version, Some(TIME)), now).is_ok();
                assert!(
                    faults::is_killed() || self.runs() == if is_applied { version } else { before },
                    "{model:?}"
                );
                if is_applied {
                    model.promise = Promise::Made;
                    model.applied.push(version);
                }
            }
            Confirm => match self.changes.confirm(now) {
                Ok(true) if !faults::is_killed() => model.settle(before),
                Ok(false) => {}
                _ => model.promise = Promise::Open,
            },
            Time => {
                self.now = now.saturating_add(Duration::from_secs(TIME));
                self.changes.roll_back_if_expired(self.now);
                if model.binds(before) && !faults::is_killed() {
                    assert_eq!(self.runs(), model.confirmed, "the promise is kept: {model:?}");
                }
            }
        }
    }
}

impl Model {
    /// This version is confirmed.
    fn settle(&mut self, version: u8) {
        (self.confirmed, self.promise) = (version, Promise::No);
        // A start asks for what the file says.
        self.unconfirmed = vec![self.file];
        self.applied.clear();
    }

    /// Whether this version has to be rolled back.
    fn binds(&self, version: u8) -> bool {
        self.promise == Promise::Made && self.applied.contains(&version)
    }

    #[track_caller]
    fn allows(&self, version: u8) {
        let is_known = version == self.confirmed || self.unconfirmed.contains(&version);
        assert!(is_known, "{}: {version} runs: {self:?}", self.what);
    }
}

/// A directory whose files are flushed at once.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("there is room for files")
}

/// Plays a story in which the fault strikes at the n-th call. Returns whether it has.
fn play(story: &[Action], call: usize, fault: Fault) -> bool {
    let directory = in_memory();
    let paths = RuntimePaths::below(directory.path(), "a");
    let what = format!("{story:?}, {fault:?} at call {call}");
    let mut model = Model {
        what,
        confirmed: 1,
        unconfirmed: Vec::new(),
        promise: Promise::No,
        applied: Vec::new(),
        file: 1,
    };
    let mut daemon = Daemon::start(1, &paths, Clock.now());
    faults::strike_at(call, fault);
    for action in story {
        daemon.act(*action, &mut model);
        if faults::is_killed() {
            break;
        }
        model.allows(daemon.runs());
    }
    let now = daemon.now;
    drop(daemon);
    if !faults::stop() {
        return false;
    }
    // The next start is at once, with the file as it is: the promise still holds.
    let mut next = Daemon::start(model.file, &paths, now);
    model.allows(next.runs());
    next.act(Time, &mut model);
    model.allows(next.runs());
    drop(next);
    // Or when the time is over.
    let later = now.saturating_add(Duration::from_secs(TIME));
    let chosen = choose(&config(model.file), Path::new(FILE), &paths, later);
    let last = version_of(&chosen.config);
    model.allows(last);
    if model.binds(model.file) {
        assert_eq!(last, model.confirmed, "the promise is kept: {model:?}");
    }
    true
}

#[test]
fn a_fault_at_any_step_leaves_the_confirmed_or_the_applied_configuration() {
    let faults = [
        Fault::Kills,
        Fault::Fails(ENOSPC),
        Fault::Fails(EIO),
        Fault::FailsFromNowOn(ENOSPC),
        Fault::FailsFromNowOn(EROFS),
    ];
    let (mut moments, mut deaths) = (0, 0);
    for story in STORIES {
        for fault in faults {
            let struck = (1..).take_while(|&call| play(story, call, fault)).count();
            assert!(struck > 5, "{story:?} {fault:?}: only {struck} steps");
            moments += struck;
            deaths += if fault == Fault::Kills { struck } else { 0 };
        }
    }
    assert!(moments > 1000 && deaths > 200, "{moments} {deaths}");
}
