//! 10,000 peers with 100,000 prefixes. Each test would take minutes if a step of it were quadratic,
//! so the limit is far above the time of a linear one on any machine.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use adit_config::Config;

const PEERS: usize = 10_000;
const PREFIXES: usize = 10;
const LIMIT: Duration = Duration::from_secs(20);

/// A file in which peer `i` has ten networks as `network` writes them.
fn file(network: impl Fn(usize) -> String) -> String {
    let mut text =
        String::from("[site]\nname = \"a\"\nunderlay = \"192.0.2.1\"\nnetworks = [\"172.16.17.0/24\"]\n");
    for peer in 0..PEERS {
        let networks: Vec<String> =
            (0..PREFIXES).map(|index| format!("\"{}\"", network(peer * PREFIXES + index))).collect();
        let (b, c) = (peer / 256, peer % 256);
        write!(
            text,
            "[[peer]]\nname = \"p{peer}\"\nunderlay = \"198.18.{b}.{c}\"\nnetworks = [{}]\n",
            networks.join(", ")
        )
        .unwrap();
    }
    text
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let took = start.elapsed();
    assert!(took < LIMIT, "{what} took {took:?}");
    result
}

fn apart(index: usize) -> String {
    format!("10.{}.{}.{}/30", index >> 14, index >> 6 & 255, (index & 63) << 2)
}

#[test]
fn a_large_overlay_is_read() {
    let text = file(apart);
    let config = timed("read", || Config::parse("x", &text)).unwrap();
    assert_eq!(config.peers.iter().map(|peer| peer.networks.len()).sum::<usize>(), PEERS * PREFIXES);
    assert_eq!(Config::parse("x", &config.to_toml()).unwrap(), config);
}

#[test]
fn a_large_overlay_of_equal_prefixes_is_refused() {
    let text = file(|_| "10.0.0.0/8".to_owned());
    let problems = timed("equal", || Config::parse("x", &text)).unwrap_err();
    assert_eq!(problems.len(), PEERS * PREFIXES - 1);
}

#[test]
fn a_large_overlay_of_nested_prefixes_is_refused() {
    let text = file(|index| format!("10.0.0.0/{}", 8 + index % 25));
    let problems = timed("nested", || Config::parse("x", &text)).unwrap_err();
    assert!(problems.len() >= PEERS * PREFIXES - 25, "{}", problems.len());
}

#[test]
fn a_large_file_on_one_line_with_a_mistake_in_each_prefix() {
    let networks: Vec<String> =
        (0..PEERS * PREFIXES).map(|index| apart(index).replace("/30", "/29x")).collect();
    let text = format!(
        "site = {{ name = \"a\", underlay = \"192.0.2.1\", networks = [\"{}\"] }}",
        networks.join("\", \"")
    );
    let problems = timed("one line", || Config::parse("x", &text)).unwrap_err();
    assert_eq!(problems.len(), PEERS * PREFIXES);
    assert_eq!(problems.iter().last().map(|problem| problem.line), Some(1));
}

#[test]
fn many_syntax_errors() {
    let text = file(apart).replace('"', "");
    let problems = timed("no quotes", || Config::parse("x", &text)).unwrap_err();
    assert!(problems.len() > PEERS * PREFIXES, "{}", problems.len());
    let twice: String = file(apart).lines().take(30_000).map(|line| format!("{line}\n{line}\n")).collect();
    let problems = timed("twice", || Config::parse("x", &twice)).unwrap_err();
    assert!(problems.len() > PEERS, "{}", problems.len());
}
