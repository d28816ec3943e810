//! English stems after Porter's algorithm of 1980, as FTS5's tokenizer `porter` has them (a test compares the two).
//!
//! It changes the word where it stands, in the caller's memory: words of private texts must not be left behind in buffers that nobody
//! wipes.

/// Shorter and longer words are left as they are, in bytes.
const SHORTEST: usize = 3;
const LONGEST: usize = 64;

/// Cuts a lower-case word to its stem. Words with other letters than `a` to `z` are stemmed by their endings, too.
pub(super) fn stem(word: &mut Vec<u8>) {
    if !(SHORTEST..=LONGEST).contains(&word.len()) {
        return;
    }
    plural(word);
    past(word);
    if word.ends_with(b"y") && has_vowel(word, word.len() - 1) {
        replace(word, 1, b"i");
    }
    first_match(word, DOUBLE_SUFFIXES, |word, stem| measure(word, stem) > 0);
    first_match(word, SUFFIXES, |word, stem| measure(word, stem) > 0);
    residue(word);
    let stem = word.len().saturating_sub(1);
    if word.ends_with(b"e") && (measure(word, stem) > 1 || (measure(word, stem) == 1 && !ends_short(word, stem))) {
        word.truncate(stem);
    }
    if word.ends_with(b"ll") && measure(word, word.len() - 1) > 1 {
        word.truncate(word.len() - 1);
    }
}

/// Whether the word has this suffix, and something before it.
fn ends(word: &[u8], suffix: &[u8]) -> bool {
    word.len() > suffix.len() && word.ends_with(suffix)
}

fn replace(word: &mut Vec<u8>, cut: usize, with: &[u8]) {
    word.truncate(word.len().saturating_sub(cut));
    word.extend_from_slice(with);
}

fn is_vowel(word: &[u8], at: usize) -> bool {
    match word.get(at) {
        Some(b'a' | b'e' | b'i' | b'o' | b'u') => true,
        // After a consonant it is a vowel.
        Some(b'y') => at > 0 && !is_vowel(word, at - 1),
        _ => false,
    }
}

/// Whether the first `stem` bytes have a vowel.
fn has_vowel(word: &[u8], stem: usize) -> bool {
    (0..stem).any(|at| is_vowel(word, at))
}

/// How often vowels are followed by consonants in the first `stem` bytes.
fn measure(word: &[u8], stem: usize) -> usize {
    (1..stem).filter(|at| !is_vowel(word, *at) && is_vowel(word, at - 1)).count()
}

/// Whether the first `stem` bytes end with a consonant, a vowel and a consonant that is not `w`, `x` or `y`.
fn ends_short(word: &[u8], stem: usize) -> bool {
    stem >= 3
        && !is_vowel(word, stem - 1)
        && is_vowel(word, stem - 2)
        && !is_vowel(word, stem - 3)
        && !matches!(word.get(stem - 1), Some(b'w' | b'x' | b'y'))
}

fn plural(word: &mut Vec<u8>) {
    if ends(word, b"sses") || ends(word, b"ies") {
        replace(word, 2, b"");
    } else if word.ends_with(b"s") && !word.ends_with(b"ss") {
        replace(word, 1, b"");
    }
}

fn past(word: &mut Vec<u8>) {
    if ends(word, b"eed") {
        if measure(word, word.len() - 3) > 0 {
            replace(word, 1, b"");
        }
        return;
    }
    let cut = match () {
        () if word.ends_with(b"ed") => 2,
        () if word.ends_with(b"ing") => 3,
        () => return,
    };
    if !has_vowel(word, word.len() - cut) {
        return;
    }
    replace(word, cut, b"");
    if word.ends_with(b"at") || word.ends_with(b"bl") || word.ends_with(b"iz") {
        word.push(b'e');
        return;
    }
    let stem = word.len();
    let last = word.last().copied().unwrap_or_default();
    if stem > 1 && word.get(stem - 2) == Some(&last) && !is_vowel(word, stem - 1) {
        if !matches!(last, b'l' | b's' | b'z') {
            word.truncate(stem - 1);
        }
    } else if measure(word, stem) == 1 && ends_short(word, stem) {
        word.push(b'e');
    }
}

/// Replaces the first suffix that the word has, if `allows` says so of what is before it.
fn first_match(word: &mut Vec<u8>, suffixes: &[(&[u8], &[u8])], allows: impl Fn(&[u8], usize) -> bool) {
    let found = suffixes.iter().find(|(suffix, _)| ends(word, suffix));
    if let Some((suffix, with)) = found
        && allows(word, word.len() - suffix.len())
    {
        replace(word, suffix.len(), with);
    }
}

/// Of two suffixes of which one ends with the other, the longer is first.
const DOUBLE_SUFFIXES: &[(&[u8], &[u8])] = &[
    (b"ational", b"ate"),
    (b"tional", b"tion"),
    (b"enci", b"ence"),
    (b"anci", b"ance"),
    (b"izer", b"ize"),
    (b"logi", b"log"),
    (b"bli", b"ble"),
    (b"alli", b"al"),
    (b"entli", b"ent"),
    (b"eli", b"e"),
    (b"ousli", b"ous"),
    (b"ization", b"ize"),
    (b"ation", b"ate"),
    (b"ator", b"ate"),
    (b"alism", b"al"),
    (b"iveness", b"ive"),
    (b"fulness", b"ful"),
    (b"ousness", b"ous"),
    (b"aliti", b"al"),
    (b"iviti", b"ive"),
    (b"biliti", b"ble"),
];

const SUFFIXES: &[(&[u8], &[u8])] = &[
    (b"icate", b"ic"),
    (b"ative", b""),
    (b"alize", b"al"),
    (b"iciti", b"ic"),
    (b"ical", b"ic"),
    (b"ful", b""),
    (b"ness", b""),
];

fn residue(word: &mut Vec<u8>) {
    const ENDINGS: &[&[u8]] = &[
        b"al", b"ance", b"ence", b"er", b"ic", b"able", b"ible", b"ement", b"ment", b"ant", b"ent", b"ion", b"ou", b"ism",
        b"ate", b"iti", b"ous", b"ive", b"ize",
    ];
    let Some(ending) = ENDINGS.iter().find(|ending| ends(word, ending)) else { return };
    let stem = word.len() - ending.len();
    let is_allowed = *ending != b"ion" || matches!(word.get(stem.wrapping_sub(1)), Some(b's' | b't'));
    if is_allowed && measure(word, stem) > 1 {
        word.truncate(stem);
    }
}
