//! A client that keeps its connection, and the servers that it starts.

use std::io::{BufRead as _, BufReader as Lines};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The variable that makes this program a server.
pub(crate) const SERVER: &str = "LOGLINE_BENCH_SERVER";
/// The variable with the address of a database. Without it the ledger is a file.
pub(crate) const DATABASE: &str = "LOGLINE_BENCH_DATABASE";

/// A server in a process of its own, which ends with this.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// One for each tenant.
    pub(crate) tokens: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts this program as `ours` or `bare`.
    pub(crate) fn start(kind: &str, database: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(SERVER, kind).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(database) = database {
            command.env(DATABASE, database);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        Lines::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"));
        let tokens = ready["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap().to_owned()).collect();
        Self { child, address: ready["address"].as_str().unwrap().parse().unwrap(), tokens }
    }

    /// Its memory, MiB.
    pub(crate) fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

/// A connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Reads the head of an answer: its status, and the length of its body if it is told.
    async fn head(&mut self) -> (u16, Option<usize>) {
        let status = self.line().await.expect("an answer");
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = None;
        loop {
            let line = self.line().await.expect("the rest of a head");
            let Some((name, value)) = line.split_once(": ") else { return (status, length) };
            if name == "content-length" {
                length = Some(value.parse().unwrap());
            }
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn call(&mut self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Vec<u8>) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let (status, length) = self.head().await;
        let mut body = vec![0; length.expect("a length")];
        self.stream.read_exact(&mut body).await.unwrap();
        (status, body)
    }

    /// Opens a stream of events, and waits until it has begun.
    pub(crate) async fn subscribe(address: SocketAddr, path: &str, token: &str) -> Self {
        let mut connection = Self::open(address).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        connection.stream.write_all(request.as_bytes()).await.unwrap();
        let (status, _) = connection.head().await;
        assert_eq!(status, 200);
        // The first lines come at once.
        connection.line().await.expect("the first chunk");
        connection
    }

    /// Waits for the next row; false at the end of the stream.
    pub(crate) async fn row(&mut self) -> bool {
        loop {
            match self.line().await {
                None => return false,
                Some(line) if line.starts_with("data:") => return true,
                Some(_) => {}
            }
        }
    }
}
