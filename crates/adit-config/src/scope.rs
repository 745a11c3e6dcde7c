//! The decoder of a network namespace or VRF: a name, or `"off"`.

use adit_peers::NameError;

use crate::decode::{Value, shown, string};
use crate::problem::Diagnostics;
use crate::schema::{KeySpec, OFF};

/// Reads the name, or `Some(None)` for [`OFF`]. `None`: it is neither, and reported.
pub(crate) fn name_or_off<T>(
    key: &KeySpec,
    value: &Value<'_>,
    new: impl Fn(String) -> Result<T, NameError>,
    diagnostics: &mut Diagnostics,
) -> Option<Option<T>> {
    let text = string(key, value, diagnostics)?;
    if text == OFF {
        return Some(None);
    }
    match new(text.to_owned()) {
        Ok(name) => Some(Some(name)),
        Err(error) => {
            key.refuse(value.span(), format!("\"{}\", which {error}", shown(text)), None, diagnostics);
            None
        }
    }
}
