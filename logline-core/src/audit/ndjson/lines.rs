//! Reads lines of limited length.

use std::io::{self, BufRead};

/// Reads lines into one buffer that never grows beyond its limit, whatever the source contains.
pub struct LineReader<'a> {
    source: &'a mut (dyn BufRead + Send),
    buffer: Vec<u8>,
    max: usize,
    number: u64,
}

/// One line of the source.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The number of the line, counted from 1, and its bytes without the line end.
    Whole(u64, &'a [u8]),
    /// The number of a line that is longer than the limit. Its bytes were skipped.
    TooLong(u64),
}

impl<'a> LineReader<'a> {
    /// Reads `source`. A line may have at most `max` bytes.
    pub fn new(source: &'a mut (dyn BufRead + Send), max: usize) -> Self {
        Self { source, buffer: Vec::new(), max, number: 0 }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let mut too_long = false;
        let mut any = false;
        loop {
            let chunk = match self.source.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = chunk.iter().position(|b| *b == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            if self.buffer.len().saturating_add(part.len()) > self.max {
                too_long = true;
                self.buffer.clear();
            } else if !too_long {
                self.buffer.extend_from_slice(part);
            }
            let used = end.map_or(chunk.len(), |at| at + 1);
            self.source.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        if too_long {
            return Ok(Some(Line::TooLong(self.number)));
        }
        let line = self.buffer.strip_suffix(b"\r").unwrap_or(&self.buffer);
        Ok(Some(Line::Whole(self.number, line)))
    }
}
