//! Callers in the process that hear an answer as it comes.

use logline_core::Host;
use logline_core::contract::provider::{Chunk, Chunks, Endpoint, ModelAnswer, ModelRequest, Provider, ProviderError};
use logline_kernels::provider::{HostSecrets, ProviderExec};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::setup::{HOST, TENANT, block_on, key, output, trust};
use crate::site::*;

#[test]
fn what_is_listened_to_comes_in_pieces_and_is_recorded_once() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let request = host.submit(asking(main, "one two three")).await.unwrap();
        let mut pieces = site.exec.streams().listen(TENANT, request.id);
        let heard = async {
            let mut heard = Vec::new();
            while let Some(piece) = pieces.recv().await {
                let Chunk::Text(text) = piece else { panic!("{piece:?}") };
                heard.push(text);
            }
            heard
        };
        let (heard, execution) = futures_util::future::join(heard, host.run_request(TENANT, request.id)).await;
        assert_eq!(heard, ["one ", "two ", "three"]);
        assert_eq!(output(&execution.unwrap())["answer"]["content"][0]["text"], "one two three");
        assert_eq!(site.outcomes().await, ["complete"]);
    });
}

#[test]
fn a_listener_that_goes_away_stops_nothing() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let request = host.submit(asking(main, &"word ".repeat(500))).await.unwrap();
        drop(site.exec.streams().listen(TENANT, request.id));
        assert!(host.run_request(TENANT, request.id).await.unwrap().result.is_ok());
    });
}

/// A listener that does not listen neither fails a call nor makes the provider look as if it failed.
#[test]
fn a_listener_that_does_not_take_its_pieces_is_left_behind() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let request = host.submit(asking(main, &"word ".repeat(300))).await.unwrap();
        let stopped = site.exec.streams().listen(TENANT, request.id);
        let execution = host.run_request(TENANT, request.id).await.unwrap();
        assert!(execution.result.is_ok());
        drop(stopped);
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok());
    });
}

/// An adapter that falls silent after three pieces, and keeps no deadline itself.
struct Silent(AtomicUsize);

#[async_trait::async_trait]
impl Provider for Silent {
    fn adapter(&self) -> &str {
        "scripted"
    }

    async fn invoke(&self, _: &Endpoint<'_>, _: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        std::future::pending().await
    }

    async fn stream(&self, _: &Endpoint<'_>, _: &ModelRequest, chunks: &mut dyn Chunks) -> Result<ModelAnswer, ProviderError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        for n in 0..3 {
            chunks.deliver(Chunk::Text(n.to_string())).await;
        }
        std::future::pending().await
    }
}

#[test]
fn a_call_that_is_stopped_after_a_piece_is_not_made_again() {
    block_on(async {
        let site = Site::new().await;
        let silent = Arc::new(Silent(AtomicUsize::new(0)));
        let exec = ProviderExec::new([Arc::clone(&silent) as Arc<dyn Provider>], HostSecrets::new());
        let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(key(HOST)).clock(site.clock.clone());
        let host = builder.install(exec.behaviours()).build().await.unwrap();
        let main = publish(&host, with(spec(), json!({"deadlines": {"total_ms": 30}}))).await;
        let request = host.submit(asking(main, "hello")).await.unwrap();
        let mut pieces = exec.streams().listen(TENANT, request.id);
        let execution = host.run_request(TENANT, request.id).await.unwrap();
        assert_eq!(code(&execution), "provider:timed_out");
        assert_eq!(silent.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        let mut heard = 0;
        while pieces.try_recv().is_ok() {
            heard += 1;
        }
        let outcomes = site.spans("provider_execution").await;
        assert_eq!((heard, outcomes.len(), &outcomes[0].meta("details").unwrap()["chunks"]), (3, 1, &json!(3)));
    });
}
