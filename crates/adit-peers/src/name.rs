//! The name of a peer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name, in bytes.
const MAX_LEN: usize = 32;

/// The reason why a text is not a name. It goes after the text: "`A`, which …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

impl NameError {
    /// The error with this reason, as it goes after "which".
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The error of a text that contains `c`.
    #[must_use]
    pub fn of_character(c: char) -> Self {
        let shown = if c == ' ' { "a space".to_owned() } else { format!("`{}`", c.escape_debug()) };
        Self(format!("has {shown} in it"))
    }
}

/// A peer's name: 1 to 32 of `a-z`, `0-9` and `-`. It is what the peer calls its own site, and a
/// site's name becomes a part of file names. A clone costs a reference count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The name `text`.
    ///
    /// # Errors
    /// `text` is empty, longer than 32 bytes, or has another character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// Checks a text against the rule of names, which the names of sites keep too.
    ///
    /// # Errors
    /// As [`PeerName::new`].
    pub fn check(text: &str) -> Result<(), NameError> {
        if text.is_empty() {
            return Err(NameError::new("is empty"));
        }
        if let Some(c) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::of_character(c));
        }
        if text.len() > MAX_LEN {
            return Err(NameError(format!("is {} characters long, {MAX_LEN} are the most", text.len())));
        }
        Ok(())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for PeerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_32_small_letters_digits_and_hyphens() {
        assert!(PeerName::new("a").is_ok());
        assert!(PeerName::new("a-0".to_owned() + &"z".repeat(29)).is_ok());
        for bad in ["", "A", "a_b", "a b", "a/b", "ä", "a\n", "."] {
            assert!(PeerName::new(bad).is_err(), "{bad:?}");
        }
        assert!(PeerName::new("z".repeat(33)).is_err());
    }
}
