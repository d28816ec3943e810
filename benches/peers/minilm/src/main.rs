//! Makes vectors of texts with a sentence transformer of the family of MiniLM, on the processor.
//!
//! `logline-minilm DIR` reads one JSON string from each line of its input, until that ends. DIR has `config.json`, `tokenizer.json` and
//! `model.safetensors`. It writes the number of dimensions (four bytes, little-endian), and then for each text as many `f32`
//! (little-endian): the mean of its tokens, of length 1.

mod bert;

use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bert::{Bert, Config};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

/// The model was trained with texts of so many tokens.
const MAX_TOKENS: usize = 256;

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: logline-minilm DIR < texts > vectors");
        return ExitCode::FAILURE;
    };
    match run(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path) -> Result<(), Failed> {
    let read = |name: &str| std::fs::read(folder.join(name)).map_err(|e| format!("{name}: {e}"));
    let config: Value = serde_json::from_slice(&read("config.json")?)?;
    let size = |name: &str| {
        let size = config.get(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| format!("config.json: `{name}` must be a whole number"))
    };
    let config = Config {
        hidden: size("hidden_size")?,
        inner: size("intermediate_size")?,
        layers: size("num_hidden_layers")?,
        heads: size("num_attention_heads")?,
        words: size("vocab_size")?,
        places: size("max_position_embeddings")?,
        kinds: size("type_vocab_size")?,
        epsilon: config.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12),
    };
    let mut tokenizer = Tokenizer::from_bytes(read("tokenizer.json")?)?;
    tokenizer.with_padding(None).with_truncation(Some(TruncationParams { max_length: MAX_TOKENS, ..Default::default() }))?;
    let weights = VarBuilder::from_buffered_safetensors(read("model.safetensors")?, DType::F32, &Device::Cpu)?;
    let model = Bert::load(&weights, &config)?;
    let mut output = std::io::stdout().lock();
    output.write_all(&u32::try_from(config.hidden)?.to_le_bytes())?;
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        for value in vector(&model, &tokenizer, &text)? {
            output.write_all(&value.to_le_bytes())?;
        }
    }
    output.flush()?;
    Ok(())
}

fn vector(model: &Bert, tokenizer: &Tokenizer, text: &str) -> Result<Vec<f32>, Failed> {
    let tokens = tokenizer.encode(text, true)?;
    let mean = model.forward(tokens.get_ids())?.mean(0)?;
    let length = mean.sqr()?.sum_all()?.sqrt()?;
    Ok(mean.broadcast_div(&length)?.to_vec1()?)
}
