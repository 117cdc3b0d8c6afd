//! How many neighbours hold each piece: all of them, and those that supply this node's site.
//!
//! Nothing is kept of an object that no neighbour holds: a node may hold many that nobody asks for.

use updraft_protocol::bitmap::Bitmap;

/// Neighbours that hold each piece.
#[derive(Debug)]
pub(super) struct Availability {
    pieces: u32,
    all: Vec<u32>,
    near: Vec<u32>,
}

/// One more holds a piece.
fn count(slots: &mut Vec<u32>, piece: u32, pieces: u32) {
    slots.resize(pieces as usize, 0);
    slots[piece as usize] += 1;
}

impl Availability {
    pub(super) fn new(pieces: u32) -> Self {
        Self { pieces, all: Vec::new(), near: Vec::new() }
    }

    /// A neighbour has one more piece.
    pub(super) fn gain(&mut self, piece: u32, is_near: bool) {
        count(&mut self.all, piece, self.pieces);
        if is_near {
            count(&mut self.near, piece, self.pieces);
        }
    }

    /// A neighbour that holds these pieces came.
    pub(super) fn add(&mut self, have: &Bitmap, is_near: bool) {
        for piece in have.iter() {
            self.gain(piece, is_near);
        }
    }

    /// A neighbour that held these pieces is gone.
    pub(super) fn remove(&mut self, have: &Bitmap, is_near: bool) {
        for piece in have.iter() {
            self.all[piece as usize] -= 1;
            if is_near {
                self.near[piece as usize] -= 1;
            }
        }
    }

    /// Neighbours that hold a piece.
    pub(super) fn all(&self, piece: u32) -> u32 {
        self.all.get(piece as usize).copied().unwrap_or(0)
    }

    /// Near neighbours that hold a piece.
    pub(super) fn near(&self, piece: u32) -> u32 {
        self.near.get(piece as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_leaves_nothing() {
        let mut availability = Availability::new(8);
        let mut have = Bitmap::empty(8);
        have.set(3);
        assert_eq!((availability.all(3), availability.near(3)), (0, 0));
        availability.add(&have, true);
        availability.add(&have, false);
        assert_eq!((availability.all(3), availability.near(3), availability.all(4)), (2, 1, 0));
        availability.remove(&have, true);
        assert_eq!((availability.all(3), availability.near(3)), (1, 0));
    }

    #[test]
    fn an_object_that_no_neighbour_holds_takes_no_memory() {
        let mut availability = Availability::new(1 << 20);
        availability.add(&Bitmap::empty(1 << 20), true);
        assert_eq!((availability.all.capacity(), availability.near.capacity()), (0, 0));
        availability.gain(7, false);
        assert_eq!(availability.near.capacity(), 0);
    }
}
