//! Which logs are trusted, and which witnesses must have cosigned: the policy file of C2SP `tlog-policy`.
//!
//! A policy is what a verifier pins. Without witnesses a log can show two people two histories, each of them consistent; a quorum of
//! witnesses that the log does not control makes that impossible.

use std::collections::BTreeMap;
use std::str::FromStr;

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{KeyKind, Note, NoteKey, Signed};

/// The most bytes of a policy file.
const MAX_POLICY: usize = 1 << 20;

/// The most logs, and the most witnesses and groups.
const MAX_MEMBERS: usize = 1000;

/// Logs, witnesses and a quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<NoteKey>,
    witnesses: Vec<NoteKey>,
    /// Where witnesses are asked, as far as the file says so.
    urls: BTreeMap<NoteKey, String>,
    quorum: Rule,
}

/// A witness, a group of which so many must agree, or nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Nobody,
    Witness(NoteKey),
    AtLeast(usize, Vec<Rule>),
}

/// Why a policy file is refused. A retry cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("policy line {line}: {reason}")]
pub struct PolicyTextError {
    /// The number of the line, counted from 1; 0 if it concerns the whole file.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Why a policy does not accept a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The checkpoint is malformed, or its signatures are not valid.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The policy does not name the log.
    #[error("log `{origin}` is not one of the {known} logs that the policy trusts")]
    UnknownLog {
        /// The origin of the checkpoint.
        origin: String,
        /// The number of logs in the policy.
        known: usize,
    },
    /// Too few witnesses have cosigned.
    #[error(
        "the quorum of witnesses is not reached: {cosigned} of those that the policy names have cosigned; get more cosignatures, or a newer checkpoint"
    )]
    Quorum {
        /// How many have.
        cosigned: usize,
    },
}

/// A checkpoint that a policy accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The cosignatures of witnesses that the policy names.
    pub cosigned: Vec<Signed>,
}

impl Policy {
    /// A policy that trusts one log and asks for no witnesses.
    #[must_use]
    pub fn of_log(log: NoteKey) -> Self {
        Self { logs: vec![log], witnesses: Vec::new(), urls: BTreeMap::new(), quorum: Rule::Nobody }
    }

    /// A policy of logs and witnesses, `quorum` of which must have cosigned.
    ///
    /// # Errors
    /// If a key is given twice (by its bytes: a cosignature does not commit to the name), has the wrong kind, or there are fewer
    /// witnesses than the quorum.
    pub fn new(logs: Vec<NoteKey>, witnesses: Vec<NoteKey>, quorum: usize) -> Result<Self, PolicyTextError> {
        let error = |reason: &str| PolicyTextError { line: 0, reason: reason.to_owned() };
        let mut builder = Builder::default();
        for log in logs {
            builder.add_log(log).map_err(|reason| error(&reason))?;
        }
        for witness in &witnesses {
            builder.add_witness(witness.clone()).map_err(|reason| error(&reason))?;
        }
        if quorum > witnesses.len() {
            return Err(error("the quorum is larger than the number of witnesses"));
        }
        let rules = witnesses.iter().cloned().map(Rule::Witness).collect();
        let quorum = if quorum == 0 { Rule::Nobody } else { Rule::AtLeast(quorum, rules) };
        Ok(Self { logs: builder.logs, witnesses, urls: BTreeMap::new(), quorum })
    }

    /// The logs that are trusted.
    #[must_use]
    pub fn logs(&self) -> &[NoteKey] {
        &self.logs
    }

    /// The witnesses that are known, whether the quorum needs them or not.
    #[must_use]
    pub fn witnesses(&self) -> &[NoteKey] {
        &self.witnesses
    }

    /// The URL below which a witness is asked, `SUBMISSION-PREFIX` of C2SP `tlog-witness`, if the file says it. It is not checked here.
    #[must_use]
    pub fn url(&self, witness: &NoteKey) -> Option<&str> {
        self.urls.get(witness).map(String::as_str)
    }

    /// Whether these signatures reach the quorum of witnesses. They must have been verified.
    #[must_use]
    pub fn has_quorum(&self, signed: &[Signed]) -> bool {
        let keys: Vec<_> = signed.iter().map(|signed| &signed.key).collect();
        self.quorum.holds(&keys)
    }

    /// Whether these witnesses, if all of them cosign, reach the quorum.
    #[must_use]
    pub fn can_reach_quorum(&self, witnesses: &[NoteKey]) -> bool {
        self.quorum.holds(&witnesses.iter().collect::<Vec<_>>())
    }

    /// Verifies a checkpoint: signed by a log of the policy, and cosigned by its quorum.
    ///
    /// # Errors
    /// [`PolicyError`], with the reason.
    pub fn verify(&self, note: &Note) -> Result<Accepted, PolicyError> {
        let origin = Checkpoint::of(note)?.origin;
        // A log may have had several keys under one origin.
        let mut candidates = self.logs.iter().filter(|log| *log.name() == origin).peekable();
        if candidates.peek().is_none() {
            return Err(PolicyError::UnknownLog { origin: origin.to_string(), known: self.logs.len() });
        }
        let mut refused = None;
        for log in candidates {
            match Checkpoint::verify(note, log, &self.witnesses) {
                Ok((checkpoint, signed)) => {
                    let cosigned: Vec<_> = signed.into_iter().filter(|signed| signed.key.kind() == KeyKind::Witness).collect();
                    if !self.has_quorum(&cosigned) {
                        return Err(PolicyError::Quorum { cosigned: cosigned.len() });
                    }
                    return Ok(Accepted { checkpoint, cosigned });
                }
                Err(error) => refused = Some(error),
            }
        }
        let error = refused.map(PolicyError::from);
        Err(error.unwrap_or(PolicyError::UnknownLog { origin: origin.to_string(), known: self.logs.len() }))
    }
}

impl Rule {
    fn holds(&self, cosigned: &[&NoteKey]) -> bool {
        match self {
            Self::Nobody => true,
            Self::Witness(key) => cosigned.contains(&key),
            Self::AtLeast(count, rules) => rules.iter().filter(|rule| rule.holds(cosigned)).count() >= *count,
        }
    }
}

/// What the lines so far have defined.
#[derive(Default)]
struct Builder {
    logs: Vec<NoteKey>,
    witnesses: Vec<NoteKey>,
    urls: BTreeMap<NoteKey, String>,
    /// Witnesses and groups by name, and whether each is a member of a group.
    rules: BTreeMap<String, (Rule, bool)>,
    quorum: Option<Rule>,
}

impl Builder {
    fn add_log(&mut self, key: NoteKey) -> Result<(), String> {
        if key.kind() != KeyKind::Log {
            return Err(format!("`{}` is not the key of a log", key.name()));
        }
        Self::add(&mut self.logs, key)
    }

    fn add_witness(&mut self, key: NoteKey) -> Result<(), String> {
        if key.kind() != KeyKind::Witness {
            return Err(format!("`{}` is not the key of a witness", key.name()));
        }
        Self::add(&mut self.witnesses, key)
    }

    fn add(keys: &mut Vec<NoteKey>, key: NoteKey) -> Result<(), String> {
        if keys.iter().any(|other| other.public_key() == key.public_key()) {
            return Err(format!("the key of `{}` is there already: a key counts once, whatever its name", key.name()));
        }
        if keys.len() >= MAX_MEMBERS {
            return Err("more than 1000 keys".to_owned());
        }
        keys.push(key);
        Ok(())
    }

    fn define(&mut self, name: &str, rule: Rule) -> Result<(), String> {
        if name == "none" || self.rules.contains_key(name) {
            return Err(format!("the name `{name}` is taken"));
        }
        self.rules.insert(name.to_owned(), (rule, false));
        Ok(())
    }

    fn named(&mut self, name: &str) -> Result<&mut (Rule, bool), String> {
        self.rules.get_mut(name).ok_or_else(|| format!("`{name}` is not defined above"))
    }

    /// A member of a new group. Nobody is in two groups, or twice in one, so that each witness counts in one way only.
    fn member(&mut self, name: &str) -> Result<Rule, String> {
        let (rule, is_member) = self.named(name)?;
        if std::mem::replace(is_member, true) {
            return Err(format!("`{name}` is a member of a group already"));
        }
        Ok(rule.clone())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<_> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let key = |text: &str| text.parse::<NoteKey>().map_err(|error| error.to_string());
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", text] | ["log", text, _] => self.add_log(key(text)?),
            ["witness", name, text, url @ ..] if url.len() <= 1 => {
                let key = key(text)?;
                self.add_witness(key.clone())?;
                self.urls.extend(url.iter().map(|url| (key.clone(), (*url).to_owned())));
                self.define(name, Rule::Witness(key))
            }
            ["group", name, count, members @ ..] if !members.is_empty() => {
                let count = match *count {
                    "any" => 1,
                    "all" => members.len(),
                    count => crate::checkpoint::parse_decimal(count).and_then(|count| usize::try_from(count).ok()).unwrap_or(0),
                };
                if !(1..=members.len()).contains(&count) {
                    return Err("a group needs `any`, `all`, or a number from 1 to that of its members".to_owned());
                }
                let members = members.iter().map(|name| self.member(name)).collect::<Result<_, _>>()?;
                self.define(name, Rule::AtLeast(count, members))
            }
            ["quorum", name] => {
                if self.quorum.is_some() {
                    return Err("there is a second quorum".to_owned());
                }
                self.quorum = Some(if *name == "none" { Rule::Nobody } else { self.named(name)?.0.clone() });
                Ok(())
            }
            _ => Err("it is none of `log`, `witness`, `group` and `quorum` with their parts".to_owned()),
        }
    }
}

/// Reads a policy file.
impl FromStr for Policy {
    type Err = PolicyTextError;

    fn from_str(text: &str) -> Result<Self, PolicyTextError> {
        let whole = |reason: &str| PolicyTextError { line: 0, reason: reason.to_owned() };
        if text.len() > MAX_POLICY {
            return Err(whole("the file is longer than 1 MiB"));
        }
        if text.bytes().any(|byte| byte == 0x7f || (byte < 0x20 && byte != b'\t' && byte != b'\n')) {
            return Err(whole("the file has control characters"));
        }
        let mut builder = Builder::default();
        for (index, line) in text.split('\n').enumerate() {
            builder.line(line).map_err(|reason| PolicyTextError { line: index + 1, reason })?;
        }
        let quorum = builder.quorum.ok_or_else(|| whole("there is no quorum: `quorum none` asks for no witnesses"))?;
        Ok(Self { logs: builder.logs, witnesses: builder.witnesses, urls: builder.urls, quorum })
    }
}
