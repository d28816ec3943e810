//! Takes the secret of a call out of the pieces of its answer.

use logline_core::contract::provider::Chunk;

/// The shortest secret that is looked for in answers: a shorter one could be any word.
pub(super) const MIN_SECRET: usize = 8;

/// Pieces without the secret. A secret may be divided among several pieces, so the end of a piece that may be its beginning waits for the
/// next one.
pub(super) struct Mask<'a> {
    secret: Option<&'a str>,
    held: Option<Chunk>,
}

impl<'a> Mask<'a> {
    pub(super) fn new(secret: Option<&'a str>) -> Self {
        Self { secret: secret.filter(|secret| secret.len() >= MIN_SECRET), held: None }
    }

    /// The pieces that may be passed on, now that there is one more.
    pub(super) fn pass(&mut self, mut chunk: Chunk) -> Vec<Chunk> {
        let Some(secret) = self.secret else { return vec![chunk] };
        let mut passed = Vec::new();
        let held = self.held.take();
        let Some(text) = text_of(&mut chunk) else {
            passed.extend(held);
            passed.push(chunk);
            return passed;
        };
        let mut joined = std::mem::take(text);
        if let Some(mut held) = held {
            if std::mem::discriminant(&held) == std::mem::discriminant(&chunk) {
                joined.insert_str(0, text_of(&mut held).map_or("", |held| held.as_str()));
            } else {
                passed.push(held);
            }
        }
        let joined = joined.replace(secret, "…");
        let (now, later) = joined.split_at(joined.len() - overlap(&joined, secret));
        self.held = (!later.is_empty()).then(|| with(&chunk, later)).flatten();
        passed.extend((!now.is_empty()).then(|| with(&chunk, now)).flatten());
        passed
    }

    /// What was held back, when nothing more comes.
    pub(super) fn rest(&mut self) -> Option<Chunk> {
        self.held.take()
    }
}

/// The bytes at the end of a text that are the beginning of the secret.
fn overlap(text: &str, secret: &str) -> usize {
    // The longest first. Between the bytes of a character there is no text.
    let mut starts = (1..secret.len()).rev().filter_map(|at| secret.get(..at));
    starts.find(|start| text.ends_with(start)).map_or(0, str::len)
}

fn text_of(chunk: &mut Chunk) -> Option<&mut String> {
    match chunk {
        Chunk::Text(text) | Chunk::Reasoning(text) | Chunk::ToolInput(text) => Some(text),
        _ => None,
    }
}

/// A piece of the same kind with this text.
fn with(chunk: &Chunk, text: &str) -> Option<Chunk> {
    let mut chunk = chunk.clone();
    text.clone_into(text_of(&mut chunk)?);
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(pieces: &[Chunk]) -> Vec<Chunk> {
        let mut mask = Mask::new(Some("sk-1234567"));
        let mut passed: Vec<_> = pieces.iter().flat_map(|piece| mask.pass(piece.clone())).collect();
        passed.extend(mask.rest());
        passed
    }

    fn text(chunks: &[Chunk]) -> String {
        let texts = chunks.iter().map(|chunk| match chunk {
            Chunk::Text(text) => text.as_str(),
            _ => "|",
        });
        texts.collect()
    }

    #[test]
    fn a_secret_in_pieces_reaches_no_listener() {
        let said = "It is sk-1234567, sk-1234567! And sk-123 is none, ask-";
        for size in 1..said.len() {
            let pieces: Vec<_> =
                said.as_bytes().chunks(size).map(|piece| Chunk::Text(String::from_utf8(piece.to_vec()).unwrap())).collect();
            assert_eq!(text(&through(&pieces)), "It is …, …! And sk-123 is none, ask-", "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_held_back_keeps_its_place_before_a_piece_of_another_kind() {
        let pieces = [Chunk::Text("sk-".to_owned()), Chunk::Reasoning("1234567".to_owned()), Chunk::Text("1234567".to_owned())];
        assert_eq!(through(&pieces), pieces);
        let mut mask = Mask::new(None);
        assert_eq!(mask.pass(Chunk::Text("sk-".to_owned())), [Chunk::Text("sk-".to_owned())]);
    }
}
