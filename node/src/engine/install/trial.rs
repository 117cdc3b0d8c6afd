//! How a release is started, and what proves that it works: what the node's own configuration says.
//!
//! Plain data. Nothing that a publisher signs gets in here: who decides what runs on a machine is its
//! operator.

/// What follows the switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trial {
    /// How a release is started; `None` starts nothing.
    pub activation: Option<Activation>,
    /// What proves that it works; `None` asks for no proof.
    pub health: Option<Health>,
    /// Starts of one release that may be tried before it is given up.
    pub max_attempts: u32,
}

/// Starts that are tried where nobody says otherwise.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;

impl Default for Trial {
    fn default() -> Self {
        Self { activation: None, health: None, max_attempts: DEFAULT_MAX_ATTEMPTS }
    }
}

impl Trial {
    /// Whether anything can fail after the switch.
    pub fn is_set(&self) -> bool {
        self.activation.is_some() || self.health.is_some()
    }

    /// Whether it was started too often.
    pub(super) fn is_exhausted(&self, attempts: u32) -> bool {
        self.is_set() && attempts > self.max_attempts
    }
}

/// How a release is started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Activation {
    /// By what.
    pub starter: Starter,
    /// Milliseconds that it may take.
    pub timeout_ms: u64,
}

/// What starts a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Starter {
    /// A restart of this systemd unit.
    Unit(String),
    /// This command with its arguments.
    Command(Vec<String>),
    /// The node itself is what is installed: it ends, and whoever keeps it up starts it from `current`.
    Node,
}

/// How a release proves that it works.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// Milliseconds between two checks.
    pub interval_ms: u64,
    /// Milliseconds that one check may take.
    pub timeout_ms: u64,
    /// Checks in a row that must succeed.
    pub successes: u32,
    /// Checks in a row that must fail before a release that worked is given up.
    pub failures: u32,
    /// Milliseconds for which a release is watched.
    pub probation_ms: u64,
}

/// A question that has a yes or no.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Does this command end with status 0?
    Command(Vec<String>),
    /// Does a GET of this `http://` URL answer with 2xx?
    Http(String),
    /// Is this systemd unit active, without having been restarted by systemd?
    Unit(String),
    /// Does this node run? That it asks is the answer: what is watched is whether it goes on running.
    Node,
}
