//! The `#[test]` attribute of adit-harness. A crate of its own, because Rust allows procedural
//! macros nowhere else; it parses by hand, because a parser library costs more to build than this.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Registers a function as a test, with what the test needs of the machine:
/// `#[test]`, `#[test(root)]`, `#[test(alone, root, adit_testbed::needs::ebpf)]`.
///
/// With `alone`, no other test of the program runs at the same time: two that measure would measure
/// each other. Any other need is the path of a `fn() -> Result<(), String>`; those of
/// `adit_harness::needs` are in scope without an import.
#[proc_macro_attribute]
pub fn test(needs: TokenStream, item: TokenStream) -> TokenStream {
    match registration(needs, &item) {
        Ok(registration) => item.into_iter().chain(registration).collect(),
        Err(message) => format!("compile_error!({message:?});").parse().unwrap_or_default(),
    }
}

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

/// The identifier after `fn`, outside of attributes.
fn function_name(item: &TokenStream) -> Result<String, String> {
    let mut tokens = item.clone().into_iter();
    while let Some(token) = tokens.next() {
        match (&token, tokens.clone().next()) {
            (TokenTree::Punct(hash), Some(TokenTree::Group(group)))
                if hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket =>
            {
                let text = group.stream().to_string();
                if text.starts_with("ignore") || text.starts_with("should_panic") {
                    return Err(format!("a test of adit-harness has needs instead of #[{text}]"));
                }
            }
            (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word.to_string() == "fn" => {
                return Ok(name.to_string());
            }
            _ => {}
        }
    }
    Err("#[test] is an attribute of functions".to_owned())
}

/// Paths between commas.
fn paths(needs: TokenStream) -> Result<Vec<String>, String> {
    let mut paths = vec![String::new()];
    for token in needs {
        match (&token, paths.last_mut()) {
            (TokenTree::Punct(comma), _) if comma.as_char() == ',' => paths.push(String::new()),
            (TokenTree::Punct(colon), Some(path)) if colon.as_char() == ':' => path.push(':'),
            (TokenTree::Ident(word), Some(path)) => path.push_str(&word.to_string()),
            // What a macro was given as a path comes in an invisible group.
            (TokenTree::Group(group), Some(path)) if group.delimiter() == Delimiter::None => {
                path.push_str(&group.stream().to_string());
            }
            (other, _) => return Err(format!("a need is the path of a function, not `{other}`")),
        }
    }
    paths.retain(|path| !path.is_empty());
    Ok(paths)
}
