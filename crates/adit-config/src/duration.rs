//! The decoder of times: a number with a unit, in quotes.

use std::time::Duration;

use toml::de::DeValue;

use crate::decode::{Value, described, string};
use crate::problem::Diagnostics;
use crate::schema::{KeySpec, Shape};

const UNITS: [(char, u32); 3] = [('s', 1), ('m', 60), ('h', 3600)];

/// A time, or one of the key's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DurationOrWord {
    Duration(Duration),
    Word(&'static str),
}

/// Reads a time of the key's range, or one of its words.
pub(crate) fn duration_or_word(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<DurationOrWord> {
    let Shape::DurationOrWord { least, most, words } = key.shape else { return None };
    if let DeValue::Integer(number) = value.get_ref() {
        let help = format!("with a unit, in quotes: `{} = \"{}s\"`", key.name, number.as_str());
        key.refuse(value.span(), described(value), Some(help), diagnostics);
        return None;
    }
    let text = string(key, value, diagnostics)?;
    if let Some((word, _)) = words.iter().find(|(word, _)| *word == text) {
        return Some(DurationOrWord::Word(word));
    }
    let help = match seconds(text) {
        Some(seconds) if (least..=most).contains(&seconds) => {
            return Some(DurationOrWord::Duration(Duration::from_secs(seconds.into())));
        }
        Some(seconds) => {
            let nearest = if seconds < least { least } else { most };
            format!("\"{nearest}s\" is the nearest that is allowed")
        }
        None => format!("write a whole number and s, m or h: `{} = \"25s\"`", key.name),
    };
    key.refuse(value.span(), described(value), Some(help), diagnostics);
    None
}

/// The seconds of a time like `25s`, at most `u32::MAX`.
fn seconds(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let (_, each) = UNITS.into_iter().find(|(letter, _)| *letter == unit)?;
    let number = text.strip_suffix(unit)?;
    let is_plain = (1..=4).contains(&number.len()) && !number.starts_with('0');
    let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u32>().ok())??;
    is_plain.then_some(number.saturating_mul(each))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_whole_number_with_a_unit() {
        for (text, expected) in [("25s", 25), ("2m", 120), ("1h", 3600), ("9999h", 35_996_400)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "s", "25", "25 s", "-1s", "+1s", "1.5s", "0s", "01s", "25ms", "25S", "12345s", "é"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
