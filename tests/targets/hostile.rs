//! The attack suite: real nodes over the real network stack face peers that can do anything but forge
//! signatures. Each module is one family of attacks, each test one way in.

mod hostile {
    mod software;
}
