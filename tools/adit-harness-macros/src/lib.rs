//! The `#[test]` attribute of adit-harness. Rust requires a separate crate for procedural macros.
//! It parses by hand, because a parser library would take longer to build than this crate.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Registers a function as a test, with the test's needs:
/// `#[test]`, `#[test(root)]`, `#[test(alone, root, adit_testbed::needs::ebpf)]`.
///
/// With `alone`, no other test of the program runs at the same time, so that it does not disturb a
/// measurement. Any other need is the path of a `fn() -> Result<(), String>`. The functions of
/// `adit_harness::needs` need no import.
#[proc_macro_attribute]
pub fn test(needs: TokenStream, item: TokenStream) -> TokenStream {
    match registration(needs, &item) {
        Ok(registration) => item.into_iter().chain(registration).collect(),
        Err(message) => format!("compile_error!({message:?});").parse().unwrap_or_default(),
    }
}

/// The item that registers the test.
fn registration(needs: TokenStream, item: &TokenStream) -> Result<TokenStream, String> {
    let name = function_name(item)?;
    let (mut list, mut is_alone) = (String::new(), false);
    for path in paths(needs)? {
        if path == "alone" {
            is_alone = true;
            continue;
        }
        let need = path.rsplit("::").next().unwrap_or(&path).trim().to_owned();
        list.push_str(&format!("::adit_harness::Need {{ name: {need:?}, check: {path} }},"));
    }
    let text = format!(
        "::adit_harness::inventory::submit! {{
             ::adit_harness::Test {{
                 path: ::core::concat!(::core::module_path!(), \"::{name}\"),
                 needs: {{
                     #[allow(unused_imports, reason = \"a test may need nothing, or nothing of these\")]
                     use ::adit_harness::needs::*;
                     &[{list}]
                 }},
                 is_alone: {is_alone},
                 run: || ::adit_harness::Outcome::into_result({name}()),
             }}
         }}"
    );
    text.parse().map_err(|error| format!("cannot register the test {name}: {error}"))
}

/// The function's name: the identifier after `fn`, outside of attributes.
///
/// # Errors
/// Fails if the item is not a function, or if it has an attribute that the harness does not
/// support.
fn function_name(item: &TokenStream) -> Result<String, String> {
    let mut tokens = item.clone().into_iter();
    while let Some(token) = tokens.next() {
        match (&token, tokens.clone().next()) {
            (TokenTree::Punct(hash), Some(TokenTree::Group(group)))
                if hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket =>
            {
                let text = group.stream().to_string();
                if text.starts_with("ignore") || text.starts_with("should_panic") {
                    return Err(format!(
                        "adit-harness does not support #[{text}]: use needs, as in #[test(root)]"
                    ));
                }
            }
            (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word.to_string() == "fn" => {
                return Ok(name.to_string());
            }
            _ => {}
        }
    }
    Err("expected a function after #[test]".to_owned())
}

/// The paths between commas.
///
/// # Errors
/// Fails at a token that is not part of a path.
fn paths(needs: TokenStream) -> Result<Vec<String>, String> {
    let mut paths = vec![String::new()];
    for token in needs {
        match (&token, paths.last_mut()) {
            (TokenTree::Punct(comma), _) if comma.as_char() == ',' => paths.push(String::new()),
            (TokenTree::Punct(colon), Some(path)) if colon.as_char() == ':' => path.push(':'),
            (TokenTree::Ident(word), Some(path)) => path.push_str(&word.to_string()),
            // A path that a macro received as an argument is in an invisible group.
            (TokenTree::Group(group), Some(path)) if group.delimiter() == Delimiter::None => {
                path.push_str(&group.stream().to_string());
            }
            (other, _) => return Err(format!("expected the path of a function as a need, found `{other}`")),
        }
    }
    paths.retain(|path| !path.is_empty());
    Ok(paths)
}
