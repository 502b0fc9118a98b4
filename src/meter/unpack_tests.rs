use async_compression::Level;
use async_compression::tokio::bufread::{
    BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
};
use async_compression::tokio::write::ZstdEncoder as ZstdWriter;
use async_compression::zstd::CParameter;
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn headers(codings: &[&'static str]) -> HeaderMap {
    let codings = codings.iter().copied().map(HeaderValue::from_static);
    codings.map(|value| (CONTENT_ENCODING, value)).collect()
}

async fn packed(coding: &str, plain: &[u8]) -> Bytes {
    let mut packed = Vec::new();
    let done = match coding {
        "gzip" | "x-gzip" => GzipEncoder::new(plain).read_to_end(&mut packed).await,
        "deflate" => ZlibEncoder::new(plain).read_to_end(&mut packed).await,
        "bare deflate" => DeflateEncoder::new(plain).read_to_end(&mut packed).await,
        "br" => BrotliEncoder::new(plain).read_to_end(&mut packed).await,
        _ => ZstdEncoder::new(plain).read_to_end(&mut packed).await,
    };
    done.unwrap();
    packed.into()
}

const CODINGS: [&str; 5] = ["gzip", "x-gzip", "deflate", "br", "zstd"];

/// A body that does not repeat itself much.
fn body(octets: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0_u64.. {
        if text.len() > octets {
            break;
        }
        text.extend_from_slice(
            number
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .to_string()
                .as_bytes(),
        );
    }
    text
}

#[tokio::test]
async fn each_coding_gives_the_body_back() {
    for length in [0, 1, 500_000] {
        let plain = body(length);
        for coding in CODINGS {
            let packed = packed(coding, &plain).await;
            let bytes = unpacked(&headers(&[coding]), &packed, MAX_UNPACKED);
            assert!(bytes.is_ok_and(|bytes| bytes == plain), "{coding} {length}");
        }
        let plain = Bytes::from(plain);
        for none in [&[][..], &["identity"], &[""]] {
            assert_eq!(
                unpacked(&headers(none), &plain, MAX_UNPACKED),
                Ok(plain.clone())
            );
            assert!(!is_packed(&headers(none)));
        }
    }
}

#[tokio::test]
async fn several_and_unknown_codings_are_refused() {
    let plain = Bytes::from_static(b"{}");
    for (codings, error) in [
        (&["gzip, br"][..], UnpackError::SeveralCodings),
        (&["gzip", "gzip"], UnpackError::SeveralCodings),
        (&["compress"], UnpackError::UnknownCoding),
        (&["gzip, x"], UnpackError::UnknownCoding),
        (&["aws-chunked"], UnpackError::UnknownCoding),
    ] {
        assert_eq!(unpacked(&headers(codings), &plain, 9), Err(error));
        assert!(is_packed(&headers(codings)));
    }
    // Not what RFC 9110 calls deflate, and not what every server takes.
    let bare = packed("bare deflate", &body(999)).await;
    let error = UnpackError::Broken("deflate (zlib)");
    assert_eq!(unpacked(&headers(&["deflate"]), &bare, 9999), Err(error));
}

#[tokio::test]
async fn a_compressed_body_ends_where_its_stream_ends() {
    for coding in CODINGS {
        let whole = packed(coding, &body(5000)).await;
        let headers = headers(&[coding]);
        let unpack = |bytes: Bytes| unpacked(&headers, &bytes, MAX_UNPACKED);
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            let cut = unpack(whole.slice(..cut));
            assert!(
                matches!(cut, Err(UnpackError::Broken(_))),
                "{coding}: {cut:?}"
            );
        }
        // A second stream: some servers read it, some do not.
        let twice = [&*whole, &*whole].concat();
        assert!(unpack(twice.into()).is_err(), "{coding}");
        let more = [&*whole, b"{\"model\":\"x\"}"].concat();
        assert!(unpack(more.into()).is_err(), "{coding}");
        assert!(
            unpack(Bytes::from_static(b"{\"model\":\"m\"}")).is_err(),
            "{coding}"
        );
    }
}

#[test]
fn a_brotli_body_with_a_window_beyond_its_coding_is_refused() {
    // What encoders with `large_window` begin with, 2^30 octets, and an empty last block in the two bits behind it.
    let large = Bytes::from_static(&[0x11, 0xde]);
    let error = unpacked(&headers(&["br"]), &large, MAX_UNPACKED);
    assert_eq!(error, Err(UnpackError::Broken("br")));
}

#[tokio::test]
async fn bombs_are_refused_before_they_fill_memory() {
    for coding in CODINGS {
        let bomb = packed(coding, &vec![b' '; 80 << 20]).await;
        let headers = headers(&[coding]);
        let error = unpacked(&headers, &bomb, u64::MAX).unwrap_err();
        assert!(error.is_too_large(), "{coding}: {error}");
        let small = packed(coding, &body(200_000)).await;
        let error = unpacked(&headers, &small, 100_000);
        assert_eq!(error, Err(UnpackError::TooLarge(100_000)), "{coding}");
    }
    // Far below every size, and yet no honest body.
    for coding in CODINGS {
        let regular = packed(coding, &vec![b' '; 4 << 20]).await;
        let error = unpacked(&headers(&[coding]), &regular, MAX_UNPACKED);
        assert_eq!(error, Err(UnpackError::Ratio), "{coding}");
    }
    // A mebibyte may be as regular as it likes.
    let regular = packed("gzip", &vec![b' '; 1 << 20]).await;
    assert!(unpacked(&headers(&["gzip"]), &regular, MAX_UNPACKED).is_ok());
}

/// A decoder must keep as much as the frame's head says (RFC 8878, section 3.1.1.1.2).
#[tokio::test]
async fn a_window_larger_than_the_coding_allows_is_refused() {
    for (log, fits) in [(23, true), (24, false), (27, false)] {
        let window = [CParameter::window_log(log)];
        let mut encoder = ZstdWriter::with_quality_and_params(Vec::new(), Level::Fastest, &window);
        encoder.write_all(&body(100_000)).await.unwrap();
        encoder.shutdown().await.unwrap();
        let packed = encoder.into_inner().into();
        let unpacked = unpacked(&headers(&["zstd"]), &packed, MAX_UNPACKED);
        assert_eq!(unpacked.is_ok(), fits, "2^{log}");
    }
}
