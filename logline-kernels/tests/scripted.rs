//! The scripted provider passes the contract of adapters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;

use async_trait::async_trait;
use logline_core::conformance::providing::{Scene, Stage};
use logline_core::contract::provider::{Block, ErrorKind, ModelAnswer, Provider, ProviderError, StopReason, Usage};
use logline_kernels::provider::{Script, ScriptedProvider};

struct Scripted(ScriptedProvider);

#[async_trait]
impl Stage for Scripted {
    fn provider(&self) -> &dyn Provider {
        &self.0
    }

    fn url(&self) -> Option<String> {
        None
    }

    async fn next(&self, scene: Scene) {
        let text = |text: String, stop, usage| Script::Answer(ModelAnswer::new(vec![Block::text(text)], stop, usage));
        let pieces = |text: &str| u32::try_from(text.split(' ').count()).unwrap();
        self.0.then([match scene {
            Scene::Says(said, usage) => text(said, StopReason::EndTurn, usage.unwrap_or_default()),
            Scene::IsCut(said) => text(said, StopReason::MaxTokens, Usage::of(5, 50)),
            Scene::UsesTool(id, name, input) => {
                let content = vec![Block::ToolUse { id, name, input }];
                Script::Answer(ModelAnswer::new(content, StopReason::ToolUse, Usage::of(20, 9)))
            }
            Scene::Fails(kind, pause) => Script::Fail(ProviderError::new(kind, "no").retry_after(pause)),
            Scene::Breaks(said) => Script::Breaks(pieces(&said), ProviderError::new(ErrorKind::StreamBroken, "reset")),
            Scene::Stalls(said) => Script::Stalls(pieces(&said)),
            _ => Script::Hang,
        }]);
    }

    async fn calls(&self) -> usize {
        self.0.calls().len()
    }
}

async fn open() -> ((), Scripted) {
    ((), Scripted(ScriptedProvider::new("scripted")))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

logline_core::provider_suite!(open, block_on);
