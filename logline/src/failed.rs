//! The error of a `main` function.

use std::error::Error;
use std::fmt;

/// Any error, for `fn main() -> Result<(), logline::Failed>`: the program prints the message and its causes, and not the fields of
/// a structure.
pub struct Failed(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// A program prints an error of `main` with `Debug`, so this is the message.
impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors show their cause already.
            if !told.contains(&text) {
                write!(f, ": {text}")?;
                told.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_prints_the_message_of_its_error() {
        fn main() -> Result<(), Failed> {
            logline_core::KeyPair::load("no/such.key")?;
            Ok(())
        }
        let printed = format!("{:?}", main().err().map(|error| error.to_string()));
        assert!(printed.contains("key file no/such.key: No such file"), "{printed}");
        assert!(!printed.contains("Io {"), "{printed}");
    }
}
