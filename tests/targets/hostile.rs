//! The attack suite: real nodes over the real network stack face peers that can do anything but forge
//! signatures. Each module is one family of attacks, each test one way in.

mod hostile {
    mod attack;
    mod bans;
    mod delegation;
    mod flood;
    mod freshness;
    mod gossip;
    mod names;
    mod poison;
    mod rollback;
    mod signatures;
    mod slowness;
    mod software;
    mod stalls;
    mod thief;
    mod ticket;
}
