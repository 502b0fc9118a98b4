//! Owns lists in answers: as many elements are read as any real answer has, so that no list of next to nothing takes a
//! hundred times its own size.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// A list of at most `MOST` elements. A longer one is none that can be read.
#[derive(Clone, Debug)]
pub(super) struct Few<T, const MOST: usize = 4096>(Vec<T>);

impl<T, const MOST: usize> Few<T, MOST> {
    /// Adds one, unless it is full.
    pub(super) fn push(&mut self, one: T) {
        if self.0.len() < MOST {
            self.0.push(one);
        }
    }
}

impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MOST: usize> Deref for Few<T, MOST> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MOST: usize> DerefMut for Few<T, MOST> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T, const MOST: usize> IntoIterator for Few<T, MOST> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for FewVisitor<T, MOST> {
    type Value = Few<T, MOST>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "a list of at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T, MOST>, A::Error> {
        let mut found = Vec::new();
        while let Some(one) = seq.next_element()? {
            if found.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            found.push(one);
        }
        Ok(Few(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        let read = |text| {
            serde_json::from_str::<Few<u8, 3>>(text)
                .map(|few| few.0)
                .ok()
        };
        assert_eq!(read("[]"), Some(vec![]));
        assert_eq!(read("[1,2,3]"), Some(vec![1, 2, 3]));
        assert_eq!(read("[1,2,3,4]"), None);
        assert_eq!(read("7"), None);
        let mut few = Few::<u8, 3>::default();
        (1..=4).for_each(|one| few.push(one));
        assert_eq!(few.0, [1, 2, 3]);
    }
}
