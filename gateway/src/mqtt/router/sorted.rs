//! A sorted map that is copied cheaply: an array of small shared arrays.
//!
//! A change copies the outer array and one inner one of at most [`CHUNK`] entries; everything else is
//! shared with the map before. Looking something up is two binary searches, going through all of it is
//! going through arrays. Up to some hundred thousand entries that beats trees, in time and in memory: a
//! map with one entry takes two small allocations, an empty one none.

use std::borrow::Borrow;
use std::sync::Arc;

/// Most entries of an inner array.
const CHUNK: usize = 64;

#[derive(Debug)]
pub(super) struct Sorted<K, V>(Vec<Arc<[(K, V)]>>);

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.0.get(self.place(key))?;
        let place = chunk.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok()?;
        chunk.get(place).map(|(_, value)| value)
    }

    /// Puts a value in; returns whether the key is new.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        // Behind the last key means into the last array.
        let place = self.place(&key).min(self.0.len().saturating_sub(1));
        let Some(chunk) = self.0.get(place) else {
            self.0 = vec![Arc::new([(key, value)])];
            return true;
        };
        let mut entries = Vec::with_capacity(chunk.len() + 1);
        entries.extend_from_slice(chunk);
        let found = chunk.binary_search_by(|(other, _)| other.cmp(&key));
        match found {
            Ok(at) => entries.splice(at..=at, [(key, value)]).for_each(drop),
            Err(at) => entries.insert(at, (key, value)),
        }
        let second = if entries.len() > CHUNK { entries.split_off(CHUNK / 2) } else { Vec::new() };
        let new = [entries, second].into_iter().filter(|part| !part.is_empty()).map(Arc::from);
        self.0.splice(place..=place, new).for_each(drop);
        found.is_err()
    }

    /// Takes a value out, if it is there.
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key);
        let chunk = self.0.get(place)?;
        let at = chunk.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok()?;
        let mut entries = chunk.to_vec();
        let (_, value) = entries.remove(at);
        let left = (!entries.is_empty()).then(|| Arc::from(entries));
        self.0.splice(place..=place, left).for_each(drop);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter().flat_map(|chunk| chunk.iter())
    }

    /// The array that holds `key` if any does.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.0.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| last.borrow() < key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    proptest::proptest! {
        #[test]
        fn it_is_a_map_and_copies_stay_what_they_were(
            steps in proptest::collection::vec((0_u16..300, proptest::bool::weighted(0.7)), 0..600),
        ) {
            let mut map = Sorted::default();
            let mut model = BTreeMap::new();
            let mut copies = Vec::new();
            for (step, (key, put)) in steps.into_iter().enumerate() {
                if put {
                    proptest::prop_assert_eq!(map.insert(key, step), model.insert(key, step).is_none());
                } else {
                    proptest::prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                proptest::prop_assert_eq!(map.get(&key), model.get(&key));
                if step % 50 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
            }
            copies.push((map, model));
            for (map, model) in copies {
                let all: Vec<_> = map.iter().copied().collect();
                proptest::prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
                proptest::prop_assert!(map.0.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
            }
        }
    }
}
