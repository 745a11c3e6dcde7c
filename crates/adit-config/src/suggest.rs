//! The suggestion of a known word for a misspelt one.

/// Longer words are not compared: no key is that long, and the cost is quadratic.
const MAX_WORD: usize = 40;

/// The known word nearest to `word`, if it is near enough to be a slip.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word: Vec<char> = word.chars().take(MAX_WORD + 1).flat_map(char::to_lowercase).collect();
    if word.len() > MAX_WORD {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of insertions, deletions, replacements and swaps of neighbours that turn `a` into
/// `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 6] = ["name", "underlay", "networks", "mtu", "mss-clamp", "df"];

    #[test]
    fn a_misspelt_word_is_found_and_another_word_is_not() {
        for (word, meant) in [
            ("naem", Some("name")),
            ("Name", Some("name")),
            ("underlya", Some("underlay")),
            ("network", Some("networks")),
            ("mss_clamp", Some("mss-clamp")),
            ("mssclamp", Some("mss-clamp")),
            ("MTU", Some("mtu")),
            ("colour", None),
            ("", None),
            ("overlay-address", None),
        ] {
            assert_eq!(nearest(word, WORDS), meant, "{word:?}");
        }
        assert_eq!(nearest(&"name".repeat(1000), WORDS), None);
    }

    #[test]
    fn distances() {
        let of = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(
            [of("", "abc"), of("abc", ""), of("abc", "abc"), of("abc", "acb"), of("kitten", "sitting")],
            [3, 3, 0, 1, 3]
        );
    }
}
