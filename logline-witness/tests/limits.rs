//! Clients that take too much of a witness, and witnesses that take too much of a log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logline_log::witness::{Answer, MemoryWitness, WitnessClient as _};
use logline_witness::{HttpWitness, MAX_CALL, ServeOptions};
use setup::{LOG, Serving, ask, key, parts, post, raw, serving_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn limited(change: impl FnOnce(&mut ServeOptions)) -> Serving {
    let mut options = ServeOptions::default();
    change(&mut options);
    serving_with(MemoryWitness::default(), Arc::new(key(2)), options).await
}

/// How long the server lets a client do nothing after these bytes.
async fn cut_after(serving: &Serving, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    started.elapsed()
}

#[tokio::test]
async fn a_slow_client_is_cut_wherever_it_stops() {
    let serving = limited(|options| options.call_timeout = Duration::from_millis(300)).await;
    for bytes in [&b""[..], b"POST /add-ch", b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: 50\r\n\r\nold 5"] {
        let cut = cut_after(&serving, bytes).await;
        assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&cut), "{cut:?}");
    }
    assert_eq!(ask(&serving, &LOG.call(0, 5)).await.0, 200);
}

#[tokio::test]
async fn slow_clients_of_one_address_do_not_take_the_places_of_all() {
    let serving = limited(|options| options.max_per_address = 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        stream.write_all(b"POST /add-ch").await.unwrap();
        held.push(stream);
    }
    // The fourth is closed, with nothing said.
    let mut more = TcpStream::connect(serving.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = more.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    drop(held);
    // When the others have left, there is room. The server sees that they left a moment later.
    for _ in 0..100 {
        if raw(serving.address, &post("x")).await.starts_with("HTTP/1.1 400") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the places did not come back");
}

#[tokio::test]
async fn a_call_that_is_too_large_is_refused_before_it_is_read() {
    let serving = limited(|_| {}).await;
    let declared = format!("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n", MAX_CALL + 1);
    assert_eq!(parts(&raw(serving.address, declared.as_bytes()).await).0, 400);
    let mut endless = b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let piece = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    (0..20).for_each(|_| endless.extend_from_slice(piece.as_bytes()));
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    let _ = stream.write_all(&endless).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(ask(&serving, &LOG.call(0, 5)).await.0, 200);
}

#[tokio::test]
async fn an_address_that_calls_too_often_is_told_to_wait() {
    let serving =
        limited(|options| (options.calls_per_second, options.burst) = (NonZeroU32::MIN, NonZeroU32::new(3).unwrap())).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(ask(&serving, &LOG.call(0, 0)).await.0);
    }
    assert_eq!(statuses[..3], [200; 3]);
    assert!(statuses.contains(&429), "{statuses:?}");
}

/// A server that says the same to everybody, and counts.
async fn saying(said: Vec<u8>) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let said = said.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&said).await;
                // It keeps the line open: only the client's deadline ends the call.
                std::future::pending::<()>().await;
            });
        }
    });
    (url, calls)
}

#[tokio::test]
async fn what_a_witness_says_has_bounds() {
    let endless = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], "a".repeat(1 << 20).as_bytes()].concat();
    let half = "— witness.example/w AAAA";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "no whole answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n".to_vec(), "no whole answer"),
        (endless, "more than 65536 bytes"),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec(), "status 500"),
        (b"HTTP/1.1 429 Wait\r\ncontent-length: 0\r\n\r\n".to_vec(), "status 429"),
        (b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\n5\n".to_vec(), "status 409"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), "without a signature"),
        (format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{half}", half.len()).into_bytes(), "no line end"),
        (b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(), ""),
    ];
    for (said, expected) in cases {
        let (url, _) = saying(said).await;
        let client = HttpWitness::new(&url).unwrap().timeout(Duration::from_millis(500));
        let started = Instant::now();
        let error = client.add_checkpoint(&LOG.call(0, 5)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, calls) = saying(b"HTTP/1.1 422 No\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let moved = format!("HTTP/1.1 307 Moved\r\nlocation: {elsewhere}/add-checkpoint\r\ncontent-length: 0\r\n\r\n");
    let (url, _) = saying(moved.into_bytes()).await;
    let error = HttpWitness::new(&url).unwrap().add_checkpoint(&LOG.call(0, 5)).await.unwrap_err();
    assert!(error.to_string().contains("307"), "{error}");
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_call_goes_below_the_prefix() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/some/prefix/", listener.local_addr().unwrap());
    let call = LOG.call(3, 5);
    let expected = call.to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).ends_with(&expected) {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&piece[..read]);
        }
        stream.write_all(b"HTTP/1.1 422 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(request).unwrap()
    });
    assert_eq!(HttpWitness::new(&url).unwrap().add_checkpoint(&call).await.unwrap(), Answer::Inconsistent);
    assert!(server.await.unwrap().starts_with("POST /some/prefix/add-checkpoint HTTP/1.1\r\n"));
}

#[test]
fn urls_that_are_none_of_a_witness_are_refused() {
    for url in [
        "",
        "witness.example",
        "ftp://witness.example",
        "https://me:secret@witness.example",
        "https://w.example/?a=b",
        "file:///etc",
    ] {
        assert!(HttpWitness::new(url).is_err(), "{url}");
    }
    assert!(HttpWitness::new("https://witness.example/a").is_ok());
}
