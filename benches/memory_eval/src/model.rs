//! Vectors by a model that the user names. Another program makes them (`benches/peers/minilm`), so that this one is compiled without a
//! library for models.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// The program's package.
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/minilm/Cargo.toml");

/// The vectors of texts, each of length 1.
pub(crate) struct Vectors(HashMap<String, Vec<f32>>);

impl Vectors {
    /// Asks the model in `folder` for the vectors of these texts, each once.
    pub(crate) fn of(folder: &Path, texts: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut texts: Vec<String> = texts.into_iter().collect();
        texts.sort_unstable();
        texts.dedup();
        let failed = |what: &str| format!("the model in {} {what}", folder.display());
        let mut child = Command::new("cargo")
            .args(["run", "--quiet", "--release", "--manifest-path", PACKAGE, "--"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&format!("cannot be started: {e}")))?;
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let lines: String = texts.iter().map(|text| format!("{}\n", serde_json::Value::from(text.as_str()))).collect();
        // It answers while it reads.
        let asked = std::thread::spawn(move || input.write_all(lines.as_bytes()));
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).map_err(|e| failed(&format!("gave no vectors: {e}")))?;
        let status = child.wait().map_err(|e| failed(&e.to_string()))?;
        if !status.success() || asked.join().is_err() {
            return Err(failed("gave no vectors: the message above says why"));
        }
        let (dimensions, values) = bytes.split_first_chunk::<4>().ok_or_else(|| failed("gave nothing"))?;
        let dimensions = u32::from_le_bytes(*dimensions) as usize;
        let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        if dimensions == 0 || values.len() != dimensions * texts.len() {
            return Err(failed(&format!("gave {} values for {} texts of {dimensions} dimensions", values.len(), texts.len())));
        }
        let vectors = values.chunks(dimensions).map(<[f32]>::to_vec);
        Ok(Self(texts.into_iter().zip(vectors).collect()))
    }

    /// The places of the texts nearest to `query` among `texts`, the nearest first.
    pub(crate) fn nearest(&self, query: &str, texts: &[&str], most: usize) -> Vec<usize> {
        let query = &self.0[query];
        let cosine =
            |text: &&str| -> f64 { query.iter().zip(&self.0[*text]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
        let mut found: Vec<(usize, f64)> = texts.iter().map(cosine).enumerate().collect();
        found.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
        found.into_iter().take(most).map(|(place, _)| place).collect()
    }
}
