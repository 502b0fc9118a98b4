//! Measures the search of answers for secrets per octet: raw, and in each coding, beside passing them on
//! and beside undoing the coding alone.
//!
//! `pass` hands pieces of 16 KiB on as they are, which is what an exchange without a secret costs; `search`
//! looks through them. A text of a model's stream is what most answers are; one full of escapes, and one full
//! of beginnings of the secret, are what is hard.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that fails should stop"
)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::io::AsyncReadExt as _;
use tollgate::scrub::coding::Coding;
use tollgate::scrub::decoder::Decoder;
use tollgate::scrub::needles::Needles;
use tollgate::scrub::stand_in::Fit;
use tollgate::scrub::stream::Scrubber;

const OCTETS: usize = 1 << 20;
const PIECE: usize = 16 << 10;
const SECRET: &str = "sk-ant-api03-Zq7T_x-R4n0mB0dyKn0ws9AAsk-Zq7T_x-R4n0mB0dyKn0ws9AA-Zq7T_x-R4n0mB0dyKn0ws9-abcdefgAA";
const PLACEHOLDER: &str = "sk-ant-api03-pL4ceh0ld_r-f0rTh3Ag3nAAsk-pL4ceh0ld_r-f0rTh3Ag3nAA-pL4ceh0ld_r-f0rTh3Ag3n-abcdefgAA";

fn texts() -> [(&'static str, Vec<u8>); 4] {
    let fill = |unit: &str| unit.bytes().cycle().take(OCTETS).collect();
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    let random = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    });
    [
        (
            "events",
            fill(
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" a few words of an answer\\n\"}}\n\n",
            ),
        ),
        ("random", random.take(OCTETS).collect()),
        (
            "escapes",
            fill("\\u00e9\\u00fc \\\\\"a\\\" %25%20%3A &#x27;&#39;&amp; \\\\\\\\u0041 "),
        ),
        (
            "beginnings",
            fill("sk-ant-api03-Zq7T_x-R4n0mB0dyKn0ws9AAsk-Zq7T_x, "),
        ),
    ]
}

fn needles() -> Arc<Needles> {
    Arc::new(Needles::new([(SECRET.as_bytes(), PLACEHOLDER.as_bytes())]))
}

fn pieces(octets: &[u8]) -> Vec<Bytes> {
    let whole = Bytes::copy_from_slice(octets);
    (0..octets.len())
        .step_by(PIECE)
        .map(|from| whole.slice(from..octets.len().min(from + PIECE)))
        .collect()
}

fn search(needles: &Arc<Needles>, pieces: &[Bytes]) -> usize {
    let mut scrubber = Scrubber::new(needles.clone(), Fit::Free);
    let mut out = VecDeque::new();
    let mut passed = 0;
    for piece in pieces {
        scrubber.feed(piece.clone(), &mut out);
        passed += out
            .drain(..)
            .map(|text| black_box(text).len())
            .sum::<usize>();
    }
    scrubber.finish(&mut out);
    passed + out.drain(..).map(|text| text.len()).sum::<usize>()
}

fn undo(needles: Option<&Arc<Needles>>, coding: Coding, pieces: &[Bytes]) -> usize {
    let mut decoder = Decoder::new(&[coding]);
    let mut scrubber = needles.map(|needles| Scrubber::new(needles.clone(), Fit::Free));
    let mut out = VecDeque::new();
    let mut passed = 0;
    for piece in pieces {
        decoder.feed(piece.clone());
        while let Some(text) = decoder.take().unwrap() {
            match &mut scrubber {
                Some(scrubber) => scrubber.feed(text, &mut out),
                None => out.push_back(text),
            }
            passed += out
                .drain(..)
                .map(|text| black_box(text).len())
                .sum::<usize>();
        }
    }
    passed
}

fn raw(criterion: &mut Criterion) {
    let needles = needles();
    let mut group = criterion.benchmark_group("scrub_raw");
    group.throughput(Throughput::Bytes(OCTETS as u64));
    for (name, text) in texts() {
        let pieces = pieces(&text);
        assert_eq!(search(&needles, &pieces), OCTETS);
        group.bench_function(BenchmarkId::new("pass", name), |bencher| {
            bencher.iter(|| {
                pieces
                    .iter()
                    .map(|piece| black_box(piece.clone()).len())
                    .sum::<usize>()
            });
        });
        group.bench_function(BenchmarkId::new("search", name), |bencher| {
            bencher.iter(|| search(&needles, &pieces));
        });
    }
    group.finish();
}

fn codings(criterion: &mut Criterion) {
    let needles = needles();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = criterion.benchmark_group("scrub_coded");
    let [(_, mut text), (_, random), ..] = texts();
    // Not so even that it compresses to nothing.
    for (at, byte) in random.iter().enumerate().step_by(23) {
        text[at] = b'a' + byte % 26;
    }
    group.throughput(Throughput::Bytes(OCTETS as u64));
    for name in ["gzip", "deflate", "br", "zstd"] {
        let mut coded = Vec::new();
        let reading = async {
            match name {
                "gzip" => GzipEncoder::new(&text[..]).read_to_end(&mut coded).await,
                "deflate" => ZlibEncoder::new(&text[..]).read_to_end(&mut coded).await,
                "br" => {
                    let level = async_compression::Level::Precise(5);
                    BrotliEncoder::with_quality(&text[..], level)
                        .read_to_end(&mut coded)
                        .await
                }
                _ => ZstdEncoder::new(&text[..]).read_to_end(&mut coded).await,
            }
        };
        runtime.block_on(reading).unwrap();
        let coding = Coding::of(name.as_bytes()).unwrap();
        let pieces = pieces(&coded);
        assert_eq!(undo(Some(&needles), coding, &pieces), OCTETS);
        group.bench_function(BenchmarkId::new("undo", name), |bencher| {
            bencher.iter(|| undo(None, coding, &pieces));
        });
        group.bench_function(BenchmarkId::new("undo_and_search", name), |bencher| {
            bencher.iter(|| undo(Some(&needles), coding, &pieces));
        });
    }
    group.finish();
}

fn small(criterion: &mut Criterion) {
    let needles = needles();
    let mut group = criterion.benchmark_group("scrub_small");
    let event = Bytes::from_static(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word\"}}\n\n");
    let mut scrubber = Scrubber::new(needles, Fit::Free);
    let mut out = VecDeque::new();
    group.bench_function("event", |bencher| {
        bencher.iter(|| {
            scrubber.feed(event.clone(), &mut out);
            out.drain(..).map(|text| text.len()).sum::<usize>()
        });
    });
    group.bench_function("make", |bencher| bencher.iter(self::needles));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500)).sample_size(20);
    targets = raw, codings, small
}
criterion_main!(benches);
