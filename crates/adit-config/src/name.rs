//! The names in a file: of the site, interfaces and network namespaces.

use std::fmt;
use std::str::FromStr;

use adit_peers::{NameError, PeerName};

/// Longest name of an interface, in bytes: the kernel's `IFNAMSIZ` without its NUL.
const MAX_DEVICE: usize = 15;

/// Longest name of a network namespace, in bytes: that of a file.
const MAX_NETNS: usize = 255;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name `text`.
            ///
            /// # Errors
            /// Fails if `text` breaks the rule of the type.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name! {
    /// A site's name: 1 to 32 of `a-z`, `0-9` and `-`, because it becomes a part of file names.
    SiteName, check_site
}

name! {
    /// An interface's name as the kernel takes it: 1 to 15 bytes of visible ASCII, none of them
    /// `/`, `:` or `%`, and none of the names that mean something else to it.
    DeviceName, check_device
}

name! {
    /// A network namespace's name, as `ip netns` has it: it becomes the name of a file.
    NetnsName, check_netns
}

impl Default for DeviceName {
    fn default() -> Self {
        Self("adit0".to_owned())
    }
}

/// A peer is named as its own site is, so the rule is one.
fn check_site(text: &str) -> Result<(), NameError> {
    PeerName::check(text)
}

fn check_device(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::new("is empty"));
    }
    // The kernel takes `%` for a pattern that it numbers itself.
    if let Some(c) = text.chars().find(|&c| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%')) {
        return Err(NameError::of_character(c));
    }
    if text.len() > MAX_DEVICE {
        return Err(NameError::new(format!("is {} bytes long, the kernel takes {MAX_DEVICE}", text.len())));
    }
    // `all` and `default` are directories of the interfaces' sysctls.
    if matches!(text, "." | ".." | "all" | "default" | "lo") {
        return Err(NameError::new("means something else to the kernel"));
    }
    Ok(())
}

fn check_netns(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::new("is empty"));
    }
    if let Some(c) = text.chars().find(|&c| !c.is_ascii_graphic() || matches!(c, '/' | '"' | '\\')) {
        return Err(NameError::of_character(c));
    }
    if text.len() > MAX_NETNS {
        return Err(NameError::new(format!("is {} bytes long, {MAX_NETNS} are the most", text.len())));
    }
    if matches!(text, "." | "..") {
        return Err(NameError::new("is a directory"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_s_name_keeps_the_rule_of_peers_names() {
        assert!(SiteName::new("a").is_ok());
        assert!(SiteName::new("a-0".to_owned() + &"z".repeat(29)).is_ok());
        for bad in ["", "A", "a_b", "a b", "a/b", "ä", "a\n", "."] {
            assert!(SiteName::new(bad).is_err(), "{bad:?}");
        }
        assert!(SiteName::new("z".repeat(33)).is_err());
    }

    #[test]
    fn names_of_interfaces_and_namespaces_keep_the_kernel_s_rules() {
        for good in ["ipipA", "adit0", "x", "a.b-c_d", "123456789012345"] {
            assert!(DeviceName::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "1234567890123456",
            "a/b",
            "a b",
            "a:1",
            "adit%d",
            ".",
            "..",
            "all",
            "default",
            "lo",
            "ä",
            "a\0",
        ] {
            assert!(DeviceName::new(bad).is_err(), "{bad:?}");
        }
        for (name, is_right) in [("blue", true), ("a.b:c%", true), ("", false), ("..", false), ("a/b", false)]
        {
            assert_eq!(NetnsName::new(name).is_ok(), is_right, "{name:?}");
        }
        assert_eq!(DeviceName::new(DeviceName::default().as_str()), Ok(DeviceName::default()));
    }
}
