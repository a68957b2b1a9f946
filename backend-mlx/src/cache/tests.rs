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

/// Where the keys lie in memory.
fn address(cache: &KvCache) -> *const f32 {
    let keys = cache.tensors()[0];
    keys.as_f32().unwrap().as_ptr()
}

#[test]
fn grows_by_steps_and_keeps_what_it_had() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut cache = KvCache::new(SHAPE);
        assert_eq!((cache.len(), cache.n_bytes()), (0, 0));
        for (n, capacity) in [(1, 256), (200, 256), (55, 256), (1, 512), (400, 768)] {
            let len = cache.len() + n;
            assert_eq!(append(&mut cache, n), expected(len));
            assert_eq!((cache.len(), cache.n_bytes()), (len, 2 * capacity * 2 * 4 * 4));
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
        assert_eq!((cache.len(), cache.n_bytes()), (0, 0));
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
            assert!(other.restore(7, 9, &bytes).unwrap());
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
            assert!(!other.restore(key, len, bytes).unwrap(), "{what}");
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
