//! Who lied, and until when nobody here talks to them.
//!
//! A ban needs proof: bytes that cannot be what they were sent as, whoever looks at them. Slowness,
//! broken connections and odd messages are faults; they end a session at worst. A ban is of a peer id
//! and never of an address, which many peers may share; a new id costs nothing, so bans stop those who
//! cannot help lying, a broken disk above all, and make the others pay for a handshake.

use std::collections::BTreeMap;

use updraft_protocol::digest::Digest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;

/// Bans that are remembered. Bounds what a stream of new identities does to memory and disk.
pub const MAX_BANS: usize = 1_024;

/// Seconds of the first ban: long enough that a broken peer costs nothing, short enough that one whose
/// disk was replaced comes back by itself.
const FIRST_S: i64 = 7 * 86_400;

/// Times that a ban doubles: the longest is 16 weeks.
const MAX_DOUBLINGS: u32 = 4;

/// Bytes of a reason. Bounds what a liar writes into the database.
const MAX_REASON_BYTES: usize = 256;

/// One peer's ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub peer: PeerId,
    /// What it did.
    pub reason: String,
    /// When.
    pub banned_at: UtcTime,
    /// When it may come back.
    pub ends_at: UtcTime,
    /// How often it was banned, this time included.
    pub offences: u32,
}

/// What a new ban changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Banned {
    /// The ban.
    pub(crate) ban: Ban,
    /// Who was banned until now and is remembered no more: whoever is refused without being on the list
    /// would be refused for ever, and fill the lists of others.
    pub(crate) let_in: Option<PeerId>,
}

/// All bans, those that are over included: they make the next one longer.
#[derive(Debug, Default)]
pub(crate) struct Bans(BTreeMap<PeerId, (Ban, bool)>);

fn length_s(offences: u32) -> i64 {
    FIRST_S << offences.saturating_sub(1).min(MAX_DOUBLINGS)
}

impl Bans {
    /// What was remembered. Nobody is banned before [`Bans::review`] says so.
    pub(crate) fn restore(bans: Vec<Ban>) -> Self {
        Self(bans.into_iter().take(MAX_BANS).map(|ban| (ban.peer.clone(), (ban, false))).collect())
    }

    /// Whether this peer is refused now.
    #[cfg(test)]
    fn is_banned(&self, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|(_, active)| *active)
    }

    /// Every ban in force.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Ban> {
        self.0.values().filter(|(_, active)| *active).map(|(ban, _)| ban)
    }

    /// Bans a peer; longer than the last time. `None` where it is banned already: what was under way when
    /// it was shut out belongs to the same offence, and must not make the ban longer.
    pub(crate) fn ban(&mut self, peer: &PeerId, reason: &str, now: UtcTime) -> Option<Banned> {
        let before = self.0.get(peer);
        if before.is_some_and(|(ban, active)| *active && now < ban.ends_at) {
            return None;
        }
        let offences = before.map_or(0, |(ban, _)| ban.offences).saturating_add(1);
        let mut let_in = None;
        if self.0.len() >= MAX_BANS && before.is_none() {
            let first =
                self.0.values().min_by_key(|(ban, active)| (*active, ban.ends_at)).map(|(ban, _)| ban.peer.clone());
            let_in = first.filter(|first| self.0.remove(first).is_some_and(|(_, active)| active));
        }
        let end =
            reason.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_REASON_BYTES).last();
        let ban = Ban {
            peer: peer.clone(),
            reason: reason[..end.unwrap_or(0)].to_owned(),
            banned_at: now,
            ends_at: now.plus_seconds(length_s(offences)),
            offences,
        };
        self.0.insert(peer.clone(), (ban.clone(), true));
        Some(Banned { ban, let_in })
    }

    /// Brings the bans in line with the time: who is refused from now on, and who no longer is. A ban
    /// never lasts longer than its length from now, so that one made under a clock that ran ahead ends.
    pub(crate) fn review(&mut self, now: UtcTime) -> (Vec<PeerId>, Vec<PeerId>) {
        let (mut begun, mut over) = (Vec::new(), Vec::new());
        for (peer, (ban, active)) in &mut self.0 {
            ban.ends_at = ban.ends_at.min(now.plus_seconds(length_s(ban.offences)));
            let holds = now < ban.ends_at;
            if holds && !*active {
                begun.push(peer.clone());
            }
            if !holds && *active {
                over.push(peer.clone());
            }
            *active = holds;
        }
        (begun, over)
    }

    /// An operator forgives a peer. False where it was not banned.
    pub(crate) fn forgive(&mut self, peer: &PeerId) -> bool {
        self.0.remove(peer).is_some_and(|(_, active)| active)
    }
}

/// Whether `bytes`, sent as `file`, are a lie: the file was asked for by its hash, and these are others.
pub(crate) fn is_wrong_file(file: &MetaFile, bytes: &[u8]) -> bool {
    match file {
        MetaFile::Target { sha256, .. } | MetaFile::Manifest { sha256 } | MetaFile::Evidence { sha256 } => {
            Digest::of(bytes) != *sha256
        }
        // Which root, head or role is right depends on what else is trusted here by now.
        MetaFile::Root { .. } | MetaFile::Head | MetaFile::Role { .. } | MetaFile::Offer(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes(&[n; 8]).expect("in bounds")
    }

    fn at(days: i64) -> UtcTime {
        UtcTime::from_unix(1_800_000_000).plus_days(days)
    }

    #[test]
    fn a_ban_ends_after_a_week_and_the_next_lasts_twice_as_long() {
        let mut bans = Bans::default();
        bans.ban(&peer(1), "lied", at(0));
        assert_eq!(bans.review(at(6)), (vec![], vec![]));
        assert!(bans.is_banned(&peer(1)));
        assert_eq!(bans.review(at(7)), (vec![], vec![peer(1)]));
        assert!(!bans.is_banned(&peer(1)));
        let again = bans.ban(&peer(1), "lied", at(8)).expect("a new offence").ban;
        assert_eq!((again.offences, again.ends_at), (2, at(8 + 14)));
    }

    #[test]
    fn no_ban_is_longer_than_sixteen_weeks() {
        let (mut bans, mut days) = (Bans::default(), 0);
        for _ in 0..40 {
            bans.ban(&peer(1), "lied", at(days)).expect("the last ban is over");
            days += 7 * 16;
        }
        assert_eq!(bans.active().next().map(|ban| ban.ends_at), Some(at(days)));
    }

    #[test]
    fn what_was_under_way_when_a_peer_was_banned_does_not_make_its_ban_longer() {
        let mut bans = Bans::default();
        let first = bans.ban(&peer(1), "lied", at(0)).expect("a new offence").ban;
        assert_eq!(bans.ban(&peer(1), "lied once more", at(0).plus_seconds(1)), None);
        assert_eq!(bans.active().collect::<Vec<_>>(), [&first]);
    }

    #[test]
    fn whoever_lies_again_once_its_ban_is_over_is_banned_again_before_anybody_looked_at_the_time() {
        let mut bans = Bans::default();
        bans.ban(&peer(1), "lied", at(0));
        assert_eq!(bans.ban(&peer(1), "lied", at(7)).map(|banned| banned.ban.offences), Some(2));
    }

    #[test]
    fn a_ban_survives_a_restart() {
        let mut bans = Bans::default();
        let ban = bans.ban(&peer(1), "lied", at(0)).expect("a new offence").ban;
        let mut restored = Bans::restore(vec![ban]);
        assert_eq!(restored.review(at(1)), (vec![peer(1)], vec![]));
        assert!(restored.is_banned(&peer(1)));
    }

    #[test]
    fn a_ban_of_a_clock_that_ran_ahead_ends_a_week_after_it_was_put_right() {
        let mut bans = Bans::default();
        bans.ban(&peer(1), "lied", at(36_500));
        assert_eq!(bans.review(at(0)), (vec![], vec![]));
        assert_eq!(bans.review(at(7)), (vec![], vec![peer(1)]));
    }

    #[test]
    fn bans_are_bounded_and_the_first_to_end_goes_first() {
        let mut bans = Bans::default();
        let id = |number: usize| PeerId::from_bytes(&number.to_be_bytes()).expect("in bounds");
        let mut let_in = Vec::new();
        for number in 0..=MAX_BANS {
            let time = at(0).plus_seconds(i64::try_from(number).expect("small"));
            let_in.extend(bans.ban(&id(number), &"é".repeat(1_000), time).and_then(|banned| banned.let_in));
        }
        assert_eq!(let_in, [id(0)], "whoever is not on the list any more must not stay shut out");
        assert_eq!(bans.active().count(), MAX_BANS);
        assert!(!bans.is_banned(&id(0)));
        assert!(bans.active().all(|ban| ban.reason.len() <= MAX_REASON_BYTES));
    }

    #[test]
    fn an_operator_may_forgive() {
        let mut bans = Bans::default();
        bans.ban(&peer(1), "lied", at(0));
        assert!(bans.forgive(&peer(1)));
        assert!(!bans.forgive(&peer(1)));
        let again = bans.ban(&peer(1), "lied", at(1)).map(|banned| banned.ban.offences);
        assert_eq!(again, Some(1), "forgiven is forgotten");
    }

    #[test]
    fn only_a_file_that_was_asked_for_by_its_hash_can_be_a_lie() {
        let sha256 = Digest::of(b"right");
        let target = MetaFile::Target { path: "channels/a/b.json".to_owned(), sha256 };
        assert!(is_wrong_file(&target, b"wrong") && !is_wrong_file(&target, b"right"));
        assert!(is_wrong_file(&MetaFile::Manifest { sha256 }, b"wrong"));
        assert!(!is_wrong_file(&MetaFile::Head, b"wrong"));
    }
}
