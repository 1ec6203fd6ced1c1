//! Power loss: what a disk holds when the power goes at any moment, and the load that is on it then.
//!
//! The rules, stricter than common file systems:
//! - the content and length of a file are safe when `fsync` or `fdatasync` of that file has returned, as they were when
//!   it was called; `sync_file_range` makes nothing safe;
//! - a name (made, renamed, removed, linked) is safe when `fsync` of its folder has returned; syncing the file does not
//!   make its name safe;
//! - of everything else any part may be there: none, all, any sectors of 512 bytes of any writes (later ones without
//!   earlier ones), lengths set or not, and of the changes of each folder any first part (file systems with a journal
//!   keep their order).

mod group;
mod image;
mod tally;

use bytes::Bytes;
use windlass_hub::store::blobs::BlobDigest;

pub use self::{
    group::{Group, Member},
    image::{Disk, Rest},
    tally::Tally,
};

/// Chance from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, 0 for 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.draw() % limit).unwrap_or_default()
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The blob with a number; its content follows from it.
#[must_use]
pub fn blob(number: u64) -> (BlobDigest, Bytes) {
    let length = usize::try_from(number.wrapping_mul(7_919) % 20_000).unwrap_or_default();
    let content = Bytes::from(Tally::command(u64::MAX, number, length));
    (BlobDigest::of(&content), content)
}
