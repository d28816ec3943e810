//! A provider that stands for a model, and customers whose answers it gives.

use logline_core::Hash;
use logline_core::contract::provider::{Block, ModelAnswer, ModelRequest, ProviderError, StopReason, Usage};
use serde_json::{Value, json};

/// The part of a prompt by which the model knows the second variant.
const STEPWISE: &str = "First find the sentence";

/// How often the model is sure, of a hundred, with the first variant and with the second.
const SURE: (u8, u8) = (60, 80);

/// Answers fixtures from their context and the prompt, and customers as well as the variant lets it.
pub(crate) fn answer(request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
    let text_of = |blocks: &[Block]| {
        let texts = blocks.iter().filter_map(|block| if let Block::Text { text } = block { Some(text.as_str()) } else { None });
        texts.collect::<Vec<_>>().join("\n")
    };
    let asked = request.messages.last().map(|message| text_of(&message.content)).unwrap_or_default();
    let is_stepwise = text_of(&request.system).contains(STEPWISE);
    let said = if asked.starts_with("Customer ") { customer(&asked, is_stepwise) } else { fixture(&asked, is_stepwise) };
    let tokens = |text: &str| u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX);
    let said = said.to_string();
    let usage = Usage::of(tokens(&asked), tokens(&said));
    Ok(ModelAnswer::new(vec![Block::Text { text: said }], StopReason::EndTurn, usage).model(Some("scripted-1".to_owned())))
}

/// The same customer always gets the same answer of a variant.
fn customer(asked: &str, is_stepwise: bool) -> Value {
    let sure = if is_stepwise { SURE.1 } else { SURE.0 };
    let dice = Hash::of(format!("{asked}/{is_stepwise}").as_bytes()).as_bytes().first().copied().unwrap_or_default();
    let is_sure = u16::from(dice) * 100 < u16::from(sure) * 256;
    json!({"text": "Your parcel is on its way.", "confidence": if is_sure { 0.9 } else { 0.3 }})
}

fn fixture(asked: &str, is_stepwise: bool) -> Value {
    let has = |part: &str| asked.contains(part);
    let answer = |text: &str| json!({"text": text, "confidence": 0.8});
    match () {
        () if has("Look up") => json!({"error": "Insufficient evidence."}),
        () if has("Friday") && is_stepwise => answer("The context contradicts itself: Tuesday, or Friday."),
        () if has("Friday") => answer("On Friday."),
        () if has("Tuesday") => answer("On Tuesday."),
        () if has("Order 17") => answer("Which order do you mean, 17 or 18?"),
        () => answer("You have 30 days."),
    }
}
