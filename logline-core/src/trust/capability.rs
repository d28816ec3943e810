//! What a function may do besides reading and emitting: capabilities such as `provider.invoke:main/*`.

/// A capability: a kind, and a pattern for what it is used on. `*` in the pattern stands for any text.
///
/// A function names the capabilities that it needs in `metadata.capabilities`, and the manifest those that functions of its tenant may
/// have. It has what both allow.
#[must_use]
pub fn allows(capability: &str, kind: &str, target: &str) -> bool {
    capability.split_once(':').is_some_and(|(of, pattern)| of == kind && matches(pattern, target))
}

/// Checks that a capability has a kind that the library knows, and a pattern.
///
/// # Errors
/// A text that says what is wrong.
pub fn check(capability: &str) -> Result<(), String> {
    let shown: String = capability.chars().take(80).collect();
    match capability.split_once(':') {
        Some((kind, pattern)) if KINDS.contains(&kind) && !pattern.is_empty() && capability.len() <= MAX_BYTES => Ok(()),
        Some((kind, pattern)) if KINDS.contains(&kind) && !pattern.is_empty() => {
            Err(format!("the capability `{shown}…` has more than {MAX_BYTES} bytes"))
        }
        _ => Err(format!("`{shown}` is not a capability: it is `KIND:PATTERN`, and the kind is one of {}", KINDS.join(", "))),
    }
}

/// The kinds that the library knows.
const KINDS: &[&str] = &["provider.invoke", "provider.embed"];

/// The most bytes of a capability.
const MAX_BYTES: usize = 256;

/// Whether a pattern matches the whole text. It takes at most as many steps as the product of the two lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // The last `*`, and where the text after it was tried.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(same) if same == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, tried)) = star else { return false };
                star = Some((at, tried + 1));
                (p, t) = (at + 1, tried + 1);
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_allows_its_kind_on_what_its_pattern_matches() {
        for (capability, target, expected) in [
            ("provider.invoke:main/large", "main/large", true),
            ("provider.invoke:main/large", "main/larger", false),
            ("provider.invoke:main/*", "main/large", true),
            ("provider.invoke:main/*", "main/", true),
            ("provider.invoke:main/*", "mainly/large", false),
            ("provider.invoke:*", "anything/at-all", true),
            ("provider.invoke:*/small*", "main/small-2", true),
            ("provider.invoke:*/small*", "main/large", false),
            ("provider.invoke:**a**b", "xxaxxb", true),
            ("provider.invoke:**a**b", "xxaxxbx", false),
            ("provider.embed:*", "main/large", false),
            ("provider.invoke", "main/large", false),
            ("provider.invoke:", "main/large", false),
            ("*:*", "main/large", false),
        ] {
            assert_eq!(allows(capability, "provider.invoke", target), expected, "{capability} on {target}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends() {
        let text = "a".repeat(256);
        assert!(!matches(&"*a".repeat(128).replace("aa", "a"), &(text.clone() + "b")));
        assert!(matches(&"*".repeat(256), &text));
    }

    #[test]
    fn what_is_no_capability_is_refused() {
        check("provider.invoke:main/*").unwrap();
        check("provider.embed:*").unwrap();
        for bad in ["", "provider.invoke", "provider.invoke:", "provider.delete:*", "*:*", "provider.*:*"] {
            assert!(check(bad).unwrap_err().contains("is not a capability"), "{bad}");
        }
        assert!(check(&format!("provider.invoke:{}", "x".repeat(256))).unwrap_err().contains("256 bytes"));
    }
}
