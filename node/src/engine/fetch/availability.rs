//! How many neighbours hold each piece: all of them, and those that are near.

use updraft_protocol::bitmap::Bitmap;

/// Neighbours that hold each piece.
#[derive(Debug)]
pub(super) struct Availability {
    all: Vec<u32>,
    near: Vec<u32>,
}

impl Availability {
    pub(super) fn new(pieces: u32) -> Self {
        Self { all: vec![0; pieces as usize], near: vec![0; pieces as usize] }
    }

    /// A neighbour has one more piece.
    pub(super) fn gain(&mut self, piece: u32, is_near: bool) {
        self.all[piece as usize] += 1;
        self.near[piece as usize] += u32::from(is_near);
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
            self.near[piece as usize] -= u32::from(is_near);
        }
    }

    /// Neighbours that hold each piece.
    pub(super) fn all(&self) -> &[u32] {
        &self.all
    }

    /// Near neighbours that hold a piece.
    pub(super) fn near(&self, piece: u32) -> u32 {
        self.near[piece as usize]
    }
}
