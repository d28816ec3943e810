//! Makes vectors of texts with a sentence transformer of the family of MiniLM, on the processor.
//!
//! `logline-minilm DIR` reads one JSON string from each line of its input, until that ends. DIR has `config.json`, `tokenizer.json` and
//! `model.safetensors`. It writes the number of dimensions (four bytes, little-endian), and then for each text as many `f32`
//! (little-endian): the mean of its tokens, of length 1.

use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
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
    let config: Config = serde_json::from_slice(&read("config.json")?)?;
    let mut tokenizer = Tokenizer::from_bytes(read("tokenizer.json")?)?;
    tokenizer.with_padding(None).with_truncation(Some(TruncationParams { max_length: MAX_TOKENS, ..Default::default() }))?;
    let weights = VarBuilder::from_buffered_safetensors(read("model.safetensors")?, DType::F32, &Device::Cpu)?;
    let model = BertModel::load(weights, &config)?;
    let mut output = std::io::stdout().lock();
    output.write_all(&u32::try_from(config.hidden_size)?.to_le_bytes())?;
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        for value in vector(&model, &tokenizer, &text)? {
            output.write_all(&value.to_le_bytes())?;
        }
    }
    output.flush()?;
    Ok(())
}

fn vector(model: &BertModel, tokenizer: &Tokenizer, text: &str) -> Result<Vec<f32>, Failed> {
    let tokens = tokenizer.encode(text, true)?;
    let tokens = Tensor::new(tokens.get_ids(), &Device::Cpu)?.unsqueeze(0)?;
    let kinds = tokens.zeros_like()?;
    // One text at a time, so that no token is padding.
    let mean = model.forward(&tokens, &kinds, None)?.squeeze(0)?.mean(0)?;
    let length = mean.sqr()?.sum_all()?.sqrt()?;
    Ok(mean.broadcast_div(&length)?.to_vec1()?)
}
