//! Where the inside of the tunnel is: a name, or `"off"`.

use adit_peers::NameError;

use crate::decode::{Key, Value, shown, string};
use crate::listen::OFF;
use crate::problem::Sink;

/// The name, or `Some(None)` for [`OFF`]. `None` where it is neither.
pub(crate) fn name_or_off<T>(
    key: &Key,
    value: &Value<'_>,
    new: impl Fn(String) -> Result<T, NameError>,
    sink: &mut Sink,
) -> Option<Option<T>> {
    let text = string(key, value, sink)?;
    if text == OFF {
        return Some(None);
    }
    match new(text.to_owned()) {
        Ok(name) => Some(Some(name)),
        Err(error) => {
            key.refuse(value.span(), format!("\"{}\", which {error}", shown(text)), None, sink);
            None
        }
    }
}
