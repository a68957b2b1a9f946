//! Caches: written in place, cut, forked, saved.

use super::*;
use crate::raw;
use crate::tensor::{ElementType, async_eval, on_stream};

const SHAPE: CacheShape = CacheShape { n_kv_heads: 2, head_dim: 4, ty: ElementType::F32 };

/// `n` tokens, `[2, n, 4]`; every value names its head, token and place, tokens counted from `first`.
fn tokens(first: usize, n: usize) -> Tensor {
    let values = (0..2).flat_map(|head| {
        (first..first + n)
            .flat_map(move |token| (0..4).map(move |at| (head * 10_000 + token * 10 + at) as f32))
    });
    Tensor::from_f32(&values.collect::<Vec<_>>(), &[2, n, 4])
}

/// Appends tokens that go on where the cache ends, and gives all keys.
fn append(cache: &mut dyn LayerCache, n: usize) -> Vec<f32> {
    let new = tokens(cache.len(), n);
    let (keys, values) = cache.update(&new, &new).unwrap();
    let all = keys.contiguous().unwrap().as_f32().unwrap().to_vec();
    assert_eq!(values.contiguous().unwrap().as_f32().unwrap(), all);
    all
}

fn expected(n: usize) -> Vec<f32> {
    tokens(0, n).as_f32().unwrap().to_vec()
}

fn n_bytes(cache: &dyn LayerCache) -> usize {
    cache.tensors().into_iter().map(Tensor::n_bytes).sum()
}

/// Where the keys lie in memory.
fn address(cache: &dyn LayerCache) -> *const f32 {
    let keys = cache.tensors()[0];
    keys.as_f32().unwrap().as_ptr()
}

#[test]
fn grows_by_steps_and_keeps_what_it_had() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut cache = KvCache::new(SHAPE);
        assert_eq!((cache.len(), n_bytes(&cache)), (0, 0));
        for (n, capacity) in [(1, 256), (200, 256), (55, 256), (1, 512), (400, 768)] {
            let len = cache.len() + n;
            assert_eq!(append(&mut cache, n), expected(len));
            assert_eq!((cache.len(), n_bytes(&cache)), (len, 2 * capacity * 2 * 4 * 4));
        }
    });
}

#[test]
fn writes_in_place() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut cache = KvCache::new(SHAPE);
        append(&mut cache, 3);
        let before = address(&cache);
        for _ in 0..20 {
            append(&mut cache, 1);
        }
        assert_eq!(address(&cache), before, "no write has copied the buffer");
    });
}

/// The reason for the rule that nobody keeps a tensor of a cache; should libmlx change here, the rule can go.
#[test]
fn a_second_handle_makes_a_write_a_copy() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut cache = KvCache::new(SHAPE);
        append(&mut cache, 3);
        let before = address(&cache);
        let kept = cache.tensors()[0].clone();
        assert_eq!(append(&mut cache, 1), expected(4));
        assert_ne!(address(&cache), before);
        assert_eq!(kept.as_f32().unwrap()[..12], expected(3)[..12], "and what was kept has not changed");
    });
}

/// As in the pipelined loop: the next write is built while the one before is only started. Whether it is in place depends
/// on how far evaluation has come; the values do not.
#[test]
fn a_step_in_flight_sees_its_own_past() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut cache = KvCache::new(SHAPE);
        append(&mut cache, 1);
        let mut in_flight: Option<(usize, Tensor)> = None;
        for token in 1..300 {
            let new = tokens(token, 1);
            let (keys, _) = cache.update(&new, &new).unwrap();
            let all = keys.add(&Tensor::from_f32(&[0.0], &[])).unwrap();
            async_eval([&all]).unwrap();
            if let Some((n, before)) = in_flight.replace((token + 1, all)) {
                assert_eq!(before.as_f32().unwrap(), expected(n));
            }
        }
        assert_eq!(append(&mut cache, 1), expected(301));
    });
}

#[test]
fn cut_then_on_is_as_if_never_longer() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut cache = KvCache::new(SHAPE);
        append(&mut cache, 300);
        assert!(cache.trim_to(257) && cache.len() == 257);
        assert_eq!(append(&mut cache, 3), expected(260));
        assert!(cache.trim_to(1000) && cache.len() == 260, "a cache does not grow by cutting");
        assert!(cache.trim_to(0));
        assert_eq!((cache.len(), n_bytes(&cache)), (0, 0));
        assert_eq!(append(&mut cache, 2), expected(2));
    });
}

#[test]
fn forks_live_their_own_lives() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut source = SequenceCache::new(2, SHAPE);
        for layer in 0..2 {
            append(source.layer(layer), 10);
        }
        let mut fork = source.fork(6).unwrap().expect("key/value caches fork");
        let other = Tensor::from_f32(&[-1.0; 8], &[2, 1, 4]);
        source.layer(0).update(&other, &other).unwrap();
        assert_eq!(append(fork.layer(0), 2), expected(8));
        assert_eq!(fork.len(), 8);
        drop(source);
        assert_eq!(append(fork.layer(1), 1), expected(7));
        assert_eq!(fork.fork(0).unwrap().expect("an empty fork").len(), 0);
    });
}

/// A cache of its own with `n` tokens.
fn filled(n: usize) -> KvCache {
    let mut cache = KvCache::new(SHAPE);
    append(&mut cache, n);
    cache
}

fn fork(source: &dyn LayerCache, len: usize) -> Box<dyn LayerCache> {
    source.fork(len).unwrap().expect("key/value caches fork")
}

#[test]
fn a_fork_whose_source_goes_is_a_move() {
    raw::start().unwrap();
    on_stream(|_| {
        for len in [10, 6] {
            let source = filled(10);
            let before = address(&source);
            let mut held = fork(&source, len);
            drop(source);
            assert!(!held.is_shared());
            assert_eq!(append(held.as_mut(), 2), expected(len + 2));
            assert_eq!(address(held.as_ref()), before, "nothing was copied");
        }
    });
}

/// In both orders, and with the fork at the source's length or before, where the source's tokens lie in the way.
#[test]
fn the_first_to_write_copies_and_the_other_stays() {
    raw::start().unwrap();
    on_stream(|_| {
        let other = Tensor::from_f32(&[-1.0; 8], &[2, 1, 4]);
        for (len, fork_first) in [(10, true), (10, false), (6, true), (6, false)] {
            let mut source = filled(10);
            let mut fork = fork(&source, len);
            let before = address(&source);
            assert!(source.is_shared() && fork.is_shared() && address(fork.as_ref()) == before);
            let (first, second): (&mut dyn LayerCache, &mut dyn LayerCache) = match fork_first {
                true => (fork.as_mut(), &mut source),
                false => (&mut source, fork.as_mut()),
            };
            first.update(&other, &other).unwrap();
            assert!(!first.is_shared() && !second.is_shared());
            assert_ne!(address(first), before);
            let len = second.len();
            assert_eq!(append(second, 1), expected(len + 1), "undisturbed");
            assert_eq!(address(second), before, "the second writes in place");
            let kept = first.len() - 1;
            let keys = first.tensors()[0].slice(&[0, 0, 0], &[2, kept, 4]).unwrap().contiguous().unwrap();
            assert_eq!(keys.as_f32().unwrap(), expected(kept));
        }
    });
}

/// As in one step with rows of both: the copy is evaluated before the other side's write is built.
#[test]
fn both_sides_written_in_one_step_are_one_copy() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut source = SequenceCache::new(2, SHAPE);
        for layer in 0..2 {
            append(source.layer(layer), 300);
        }
        let before: Vec<_> = source.tensors().map(|tensor| tensor.as_f32().unwrap().as_ptr()).collect();
        let mut fork = source.fork(280).unwrap().expect("key/value caches fork");
        fork.make_room(1).unwrap();
        source.make_room(1).unwrap();
        let mut views = Vec::new();
        for layer in 0..2 {
            for cache in [&mut fork, &mut source] {
                let new = tokens(cache.layer(layer).len(), 1);
                views.push(cache.layer(layer).update(&new, &new).unwrap());
            }
        }
        async_eval(views.iter().flat_map(|(keys, values)| [keys, values])).unwrap();
        drop(views);
        let after: Vec<_> = source.tensors().map(|tensor| tensor.as_f32().unwrap().as_ptr()).collect();
        assert_eq!(after, before, "the source has not moved");
        for (cache, n) in [(&mut fork, 281), (&mut source, 301)] {
            assert_eq!((cache.len(), append(cache.layer(1), 1)), (n, expected(n + 1)));
        }
    });
}

#[test]
fn forks_copy_no_more_than_their_own() {
    raw::start().unwrap();
    on_stream(|_| {
        let capacity = |cache: &dyn LayerCache| n_bytes(cache) / (2 * SHAPE.n_bytes(1));
        let source = filled(3000);
        assert_eq!(capacity(&source), 3072);
        let mut long = fork(&source, 1600);
        assert_eq!((long.is_shared(), capacity(long.as_ref())), (true, 3072));
        assert_eq!(append(long.as_mut(), 1), expected(1601));
        assert_eq!((long.is_shared(), capacity(long.as_ref())), (false, 1792));
        // So short a one would keep the whole buffer alive: copied at once.
        let mut short = fork(&source, 100);
        assert_eq!((short.is_shared(), source.is_shared(), capacity(short.as_ref())), (false, false, 256));
        assert_eq!(append(short.as_mut(), 1), expected(101));
        assert_eq!(n_bytes(fork(&source, 0).as_ref()), 0);
    });
}

#[test]
fn forks_of_forks_share_too() {
    raw::start().unwrap();
    on_stream(|_| {
        let source = filled(20);
        let (one, two) = (fork(&source, 20), fork(&source, 18));
        let mut three = fork(two.as_ref(), 15);
        drop((source, two));
        assert!(one.is_shared());
        assert_eq!(append(three.as_mut(), 3), expected(18));
        assert!(!one.is_shared());
        let keys = one.tensors()[0].slice(&[0, 0, 0], &[2, 20, 4]).unwrap().contiguous().unwrap();
        assert_eq!(keys.as_f32().unwrap(), expected(20));
    });
}

#[test]
fn a_state_comes_back_from_its_bytes() {
    raw::start().unwrap();
    on_stream(|_| {
        for ty in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
            let shape = CacheShape { ty, ..SHAPE };
            let mut cache = SequenceCache::new(2, shape);
            for layer in 0..2 {
                let new = tokens(0, 9);
                cache.layer(layer).update(&new, &new).unwrap();
            }
            let bytes = cache.snapshot(7).unwrap();
            let mut other = SequenceCache::new(2, shape);
            assert!(other.restore(7, 9, &bytes));
            assert_eq!((other.len(), other.snapshot(7).unwrap()), (9, bytes), "{ty}");
        }
    });
}

#[test]
fn foreign_bytes_are_refused() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut cache = SequenceCache::new(2, SHAPE);
        for layer in 0..2 {
            append(cache.layer(layer), 9);
        }
        let bytes = cache.snapshot(7).unwrap();
        let refuses = |what: &str, shape: CacheShape, n_layers: usize, key: u64, len: usize, bytes: &[u8]| {
            let mut other = SequenceCache::new(n_layers, shape);
            assert!(!other.restore(key, len, bytes), "{what}");
            assert_eq!(other.len(), 0, "{what}");
        };
        refuses("another model", SHAPE, 2, 8, 9, &bytes);
        refuses("another length", SHAPE, 2, 7, 8, &bytes);
        refuses("a length beyond all memory", SHAPE, 2, 7, u32::MAX as usize, &bytes);
        refuses("more layers", SHAPE, 3, 7, 9, &bytes);
        refuses("another type", CacheShape { ty: ElementType::F16, ..SHAPE }, 2, 7, 9, &bytes);
        refuses("other heads", CacheShape { n_kv_heads: 4, head_dim: 2, ..SHAPE }, 2, 7, 9, &bytes);
        refuses("cut short", SHAPE, 2, 7, 9, &bytes[..bytes.len() - 1]);
        refuses("too long", SHAPE, 2, 7, 9, &[bytes.as_slice(), &[0]].concat());
        refuses("nothing", SHAPE, 2, 7, 9, &[]);
    });
}
