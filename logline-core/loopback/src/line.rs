//! A connection, as the server has it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Seen, Shared, record};

/// A connection with one request. The client may leave at any time, so nothing that is sent can fail.
pub struct Line {
    socket: TcpStream,
    shared: Arc<Shared>,
}

impl Line {
    pub(crate) fn new(socket: TcpStream, shared: Arc<Shared>) -> Self {
        Self { socket, shared }
    }

    pub(crate) async fn request(&mut self) -> Option<Seen> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if self.socket.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
        while bytes.len() < end + length {
            if self.socket.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        record::keep(self.shared.dialect.record(), "request", &head, &bytes[end..]);
        Some(Seen { head, body: serde_json::from_slice(&bytes[end..]).unwrap_or_default() })
    }

    /// Keeps a part of an answer for `cargo xtask interop`.
    pub fn keep(&self, kind: &str, bytes: &[u8]) {
        record::keep(self.shared.dialect.record(), kind, "", bytes);
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// Sends a whole answer whose end is that of the connection. `head` is the status, and headers if there are any.
    pub async fn raw(&mut self, head: &str, body: &[u8]) {
        self.write(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes()).await;
        self.write(body).await;
    }

    /// Begins an answer in pieces.
    pub async fn begin(&mut self, media: &str) {
        let id = self.shared.dialect.id_header();
        let head = format!("200 OK\r\ncontent-type: {media}\r\n{id}: req-7\r\ntransfer-encoding: chunked");
        self.raw(&head, b"").await;
    }

    /// Sends a piece of the answer, or every byte of it by itself.
    pub async fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(if self.shared.drips { 1 } else { bytes.len() }) {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            self.write(&chunk).await;
            let _ = self.socket.flush().await;
        }
    }

    /// Ends an answer in pieces.
    pub async fn end(&mut self) {
        self.write(b"0\r\n\r\n").await;
    }

    /// Sends a JSON answer in pieces, and keeps it.
    pub async fn whole(&mut self, body: &str) {
        self.keep("answer", body.as_bytes());
        self.begin("application/json").await;
        self.send(body.as_bytes()).await;
        self.end().await;
    }

    pub(crate) async fn close(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Waits until the client has gone.
    pub async fn hang(mut self) {
        let _ = self.socket.read(&mut [0]).await;
        self.shared.left.notify_one();
    }
}

/// A text in pieces of four characters.
#[must_use]
pub fn pieces(text: &str) -> Vec<String> {
    text.chars().collect::<Vec<_>>().chunks(4).map(|piece| piece.iter().collect()).collect()
}
