//! The encoder of BERT, as MiniLM has it: one text at a time, without padding.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, Module as _, VarBuilder, embedding, layer_norm, linear, ops};

/// The sizes in `config.json`.
pub(crate) struct Config {
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) words: usize,
    pub(crate) places: usize,
    pub(crate) kinds: usize,
    pub(crate) epsilon: f64,
}

pub(crate) struct Bert {
    words: Embedding,
    places: Embedding,
    kinds: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
    last_norm: LayerNorm,
    heads: usize,
}

impl Bert {
    pub(crate) fn load(weights: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let embeddings = weights.pp("embeddings");
        let layers = (0..config.layers).map(|n| Layer::load(&weights.pp(format!("encoder.layer.{n}")), config));
        Ok(Self {
            words: embedding(config.words, config.hidden, embeddings.pp("word_embeddings"))?,
            places: embedding(config.places, config.hidden, embeddings.pp("position_embeddings"))?,
            kinds: embedding(config.kinds, config.hidden, embeddings.pp("token_type_embeddings"))?,
            norm: layer_norm(config.hidden, config.epsilon, embeddings.pp("LayerNorm"))?,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    /// A vector for each token.
    pub(crate) fn forward(&self, tokens: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(tokens, &Device::Cpu)?;
        let places = Tensor::arange(0, tokens.len() as u32, &Device::Cpu)?;
        let embedded = (self.words.forward(&ids)? + self.places.forward(&places)?)?;
        let embedded = (embedded + self.kinds.forward(&ids.zeros_like()?)?)?;
        self.layers.iter().try_fold(self.norm.forward(&embedded)?, |tokens, layer| layer.forward(&tokens))
    }
}

impl Layer {
    fn load(weights: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let (hidden, inner) = (config.hidden, config.inner);
        let attention = weights.pp("attention");
        Ok(Self {
            query: linear(hidden, hidden, attention.pp("self.query"))?,
            key: linear(hidden, hidden, attention.pp("self.key"))?,
            value: linear(hidden, hidden, attention.pp("self.value"))?,
            output: linear(hidden, hidden, attention.pp("output.dense"))?,
            norm: layer_norm(hidden, config.epsilon, attention.pp("output.LayerNorm"))?,
            up: linear(hidden, inner, weights.pp("intermediate.dense"))?,
            down: linear(inner, hidden, weights.pp("output.dense"))?,
            last_norm: layer_norm(hidden, config.epsilon, weights.pp("output.LayerNorm"))?,
            heads: config.heads,
        })
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (count, hidden) = tokens.dims2()?;
        let size = hidden / self.heads;
        let split = |all: Tensor| all.reshape((count, self.heads, size))?.transpose(0, 1)?.contiguous();
        let (query, key) = (split(self.query.forward(tokens)?)?, split(self.key.forward(tokens)?)?);
        let value = split(self.value.forward(tokens)?)?;
        let scores = (query.matmul(&key.transpose(1, 2)?.contiguous()?)? / (size as f64).sqrt())?;
        let seen = ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
        let seen = seen.transpose(0, 1)?.contiguous()?.reshape((count, hidden))?;
        let tokens = self.norm.forward(&(tokens + self.output.forward(&seen)?)?)?;
        let inner = self.down.forward(&self.up.forward(&tokens)?.gelu_erf()?)?;
        self.last_norm.forward(&(tokens + inner)?)
    }
}
