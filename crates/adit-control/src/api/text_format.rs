//! Prometheus' text format 0.0.4, which many scrapers ask for, made from OpenMetrics 1.0.
//!
//! They differ in what a family is called: OpenMetrics leaves `_total` and `_info` out of its name.
//! The older format has no units, no `info`, and no mark at the end.

use std::collections::HashMap;
use std::fmt::Write;

/// The content type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns true if a client that accepts this takes OpenMetrics.
pub(crate) fn takes_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|kind| kind.split(';').next().is_some_and(is_openmetrics))
}

fn is_openmetrics(kind: &str) -> bool {
    kind.trim().eq_ignore_ascii_case("application/openmetrics-text")
}

/// Rewrites a text of OpenMetrics. Cost: linear in the text.
pub(crate) fn of_openmetrics(text: &str) -> String {
    let kinds: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let family = |name: &str| match kinds.get(name) {
        Some(&"counter") => format!("{name}_total"),
        Some(&"info") => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let mut older = String::with_capacity(text.len());
    for line in text.lines() {
        let written = if let Some((name, kind)) = described(line, "# TYPE ") {
            let kind = match kind {
                "info" => "gauge",
                "unknown" => "untyped",
                kind => kind,
            };
            writeln!(older, "# TYPE {} {kind}", family(name))
        } else if let Some((name, help)) = described(line, "# HELP ") {
            writeln!(older, "# HELP {} {help}", family(name))
        } else if line.starts_with("# UNIT ") || line == "# EOF" {
            Ok(())
        } else {
            writeln!(older, "{line}")
        };
        // Text in memory takes everything.
        debug_assert!(written.is_ok());
    }
    older
}

fn described<'a>(line: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(what)?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_called_what_their_samples_are() {
        let openmetrics = "# HELP adit_site The site.\n# TYPE adit_site info\nadit_site_info{site=\"a\"} 1\n\
                           # HELP adit_sent_bytes Sent.\n# TYPE adit_sent_bytes counter\n# UNIT adit_sent_bytes bytes\n\
                           adit_sent_bytes_total{site=\"a\"} 5\n# HELP adit_up Up.\n# TYPE adit_up gauge\n\
                           adit_up{site=\"a\"} 1\n# TYPE adit_odd unknown\nadit_odd 2\n# EOF\n";
        let older = "# HELP adit_site_info The site.\n# TYPE adit_site_info gauge\nadit_site_info{site=\"a\"} 1\n\
                     # HELP adit_sent_bytes_total Sent.\n# TYPE adit_sent_bytes_total counter\n\
                     adit_sent_bytes_total{site=\"a\"} 5\n# HELP adit_up Up.\n# TYPE adit_up gauge\n\
                     adit_up{site=\"a\"} 1\n# TYPE adit_odd untyped\nadit_odd 2\n";
        assert_eq!(of_openmetrics(openmetrics), older);
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        for (accept, is_taken) in [
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
                true,
            ),
            ("text/plain, Application/OpenMetrics-Text", true),
            ("text/plain;version=0.0.4", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(takes_openmetrics(accept), is_taken, "{accept}");
        }
    }
}
