//! What a running daemon can be asked, on its socket and by a scraper, and what it tells by itself.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::support::exposition;
use crate::support::http::{self, Answer};
use crate::support::machine::{PATIENCE, PROGRAM, Running};
use crate::support::sites::Sites;
use crate::support::{keys, wait_until};
use adit_control::api::{Endpoint, openapi};
use adit_control::state::events::{Event, EventKind};
use adit_lab::checks::reaches;
use adit_lab::ping::ping;
use adit_lab::two_sites::{HOST_B, INSIDE_B};
use ipnet::Ipv4Net;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOCKET: &str = "/run/adit/a.sock";
const SCRAPED: &str = "127.0.0.1:9150";

/// Waits for an event, as `adit events -j` prints it.
#[track_caller]
fn event(follower: &mut Running, is_it: impl Fn(&EventKind) -> bool) -> Event {
    loop {
        let event: Event = serde_json::from_str(&follower.wait_for("{")).unwrap();
        if is_it(&event.kind) {
            return event;
        }
    }
}

/// Asks gateway A's daemon on its socket.
fn ask(sites: &Sites, path: &str) -> Answer {
    sites.machine.with_files(|| http::get(UnixStream::connect(SOCKET).unwrap(), path))
}

/// The same by TCP, as a scraper.
fn scrape(sites: &Sites, path: &str) -> Answer {
    let address: SocketAddr = SCRAPED.parse().unwrap();
    sites
        .machine
        .within(sites.network.gateway_a.ns(), || http::get(TcpStream::connect(address).unwrap(), path))
}

fn scraped_sites() -> Sites {
    Sites::with_site(format!("dataplane = \"userspace\"\nmetrics = \"{SCRAPED}\""))
}

#[test(root)]
fn a_scraper_may_ask_for_the_older_text_format() {
    let sites = scraped_sites();
    let _a = sites.run_a(&[]);
    let gateway = sites.network.gateway_a.ns();
    for accept in ["text/plain;version=0.0.4", "*/*"] {
        let answer = sites
            .machine
            .within(gateway, || http::get_as(TcpStream::connect(SCRAPED).unwrap(), "/metrics", accept));
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let types = answer.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').nth(1));
        assert!(types.clone().count() > 10, "{}", answer.body);
        assert!(types.clone().all(|kind| ["counter", "gauge"].contains(&kind)), "{}", answer.body);
        assert!(!answer.body.contains("# EOF") && !answer.body.contains("# UNIT"), "{}", answer.body);
    }
}

/// Others wait in the kernel.
#[test(root)]
fn silent_clients_of_the_metrics_take_few_descriptors() {
    let sites = scraped_sites();
    let a = sites.run_a(&[]);
    let gateway = sites.network.gateway_a.ns();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", a.pid())).unwrap().count();
    let before = open();
    let silent: Vec<TcpStream> =
        sites.machine.within(gateway, || (0..100).map(|_| TcpStream::connect(SCRAPED).unwrap()).collect());
    wait_until(PATIENCE, "clients are accepted", || open() >= before + 16);
    for _ in 0..5 {
        sites.machine.adit(gateway, &["status", "a"]).ok();
        assert!(open() <= before + 20, "{} descriptors, {before} before", open());
    }
    drop(silent);
    assert_eq!(scrape(&sites, "/metrics").code, 200);
}

#[test(root)]
fn a_scraper_finds_numbers_that_only_grow() {
    let sites = scraped_sites();
    let (_a, _b) = (sites.run_a(&[]), sites.run_b());
    let families = || {
        let answer = scrape(&sites, "/metrics");
        assert_eq!(answer.code, 200);
        assert_eq!(answer.header("content-type"), Some(adit_control::api::metrics::CONTENT_TYPE));
        exposition::parse(&answer.body)
    };
    let labels = "{site=\"a\",peer=\"b\"}";
    let sent = format!("adit_peer_tx_bytes_total{labels}");
    let before = families();
    sites.assert_joined();
    wait_until(PATIENCE, "what was sent is counted", || {
        families()["adit_peer_tx_bytes"].samples[&sent] > before["adit_peer_tx_bytes"].samples[&sent]
    });
    let after = families();
    assert_eq!(after["adit_peer_up"].samples[&format!("adit_peer_up{labels}")], 1.0);
    let mtu = format!("adit_peer_path_mtu_bytes{labels}");
    assert_eq!(after["adit_peer_path_mtu_bytes"].samples[&mtu], 1500.0);
    let mut grown = 0;
    for (name, family) in before.iter().filter(|(_, family)| family.kind == "counter") {
        for (series, count) in &family.samples {
            let now = after[name].samples[series];
            assert!(now >= *count, "{series}: {count}, then {now}");
            grown += usize::from(now > *count);
        }
    }
    assert!(grown >= 4, "packets and bytes both ways: {grown}");

    let on_socket = exposition::parse(&ask(&sites, Endpoint::Metrics.path()).body);
    assert!(on_socket.keys().eq(after.keys()), "the socket has the same");
    for path in ["/", "/v1/status", "/v1/metrics", "/v1/events"] {
        assert_eq!(scrape(&sites, path).code, 404, "{path}: a scraper is told numbers only");
    }
}

#[test(root)]
fn an_address_that_cannot_be_had_ends_the_start_before_anything_is_made() {
    let sites = Sites::with_site("metrics = \"192.0.2.77:9150\"");
    let before = sites.view_a();
    let said = sites.machine.adit(sites.network.gateway_a.ns(), &["run", &sites.file("a.toml")]).with(1);
    insta::assert_snapshot!(
        said.stderr,
        @"adit: cannot listen on 192.0.2.77:9150 for site.metrics: Cannot assign requested address (os error 99); give it an address of this machine and a port that nothing else has, or leave it out"
    );
    assert_eq!(sites.view_a(), before);
}

/// The description is what there is, and what there is is as described.
#[test(root)]
fn every_answer_is_as_described() {
    let sites = Sites::with_dataplane("userspace");
    let (_a, _b) = (sites.run_a(&[]), sites.run_b());
    sites.assert_joined();
    let description = openapi();
    let paths = description["paths"].as_object().unwrap();
    assert_eq!(paths.len(), Endpoint::ALL.len());
    for (path, methods) in paths {
        // What changes something, `service.rs` asks; see the test of what is applied below, too.
        let Some(get) = methods.get("get") else { continue };
        let content = get["responses"]["200"]["content"].as_object().unwrap();
        let (media_type, described) = content.iter().next().unwrap();
        if path == Endpoint::Events.path() {
            continue; // It has no end: see the test of events.
        }
        let answer = ask(&sites, path);
        assert_eq!((answer.code, answer.header("content-type")), (200, Some(media_type.as_str())), "{path}");
        let value = match media_type.as_str() {
            "application/json" => answer.json(),
            _ => Value::String(answer.body),
        };
        assert_fits(&description, &described["schema"], &value);
    }
    let unknown = ask(&sites, "/v1/nothing");
    assert_eq!(unknown.code, 404);
    assert_fits(&description, &json!({ "$ref": "#/components/schemas/ErrorBody" }), &unknown.json());
    assert!(unknown.body.contains("/v1/status"), "it says what there is: {}", unknown.body);
}

/// Nothing else than what is described, either.
#[track_caller]
fn assert_fits(description: &Value, schema: &Value, value: &Value) {
    let mut whole = schema.clone();
    whole["components"] = description["components"].clone();
    whole["unevaluatedProperties"] = json!(false);
    let validator = jsonschema::draft202012::new(&whole).unwrap();
    let mistakes: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert_eq!(mistakes, [] as [String; 0], "{value}");
}

#[test(root)]
fn what_happens_to_a_peer_is_told_once() {
    let sites = Sites::with_dataplane("userspace");
    let network = &sites.network;
    let a = sites.run_a(&[]);
    let follow = |arguments: &[&str]| {
        let mut running = sites.machine.start(network.gateway_a.ns(), arguments);
        assert_eq!(running.wait_for("following"), "following overlay `a`");
        running
    };
    let (people, mut programs) = (follow(&["events"]), follow(&["events", "a", "-j"]));
    let b = sites.run_b();
    sites.assert_joined();
    let up = event(&mut programs, |what| *what == EventKind::PeerUp { peer: "b".to_owned() });
    assert_eq!((up.schema, up.site.as_str()), (2, "a"));
    assert_fits(
        &openapi(),
        &json!({ "$ref": "#/components/schemas/Event" }),
        &serde_json::to_value(&up).unwrap(),
    );

    network.router.mtu("toB", 1300).unwrap();
    network.gateway_b.mtu("underlayB", 1300).unwrap();
    network.host_a.run(|| ping(HOST_B, 1480, 64, Duration::from_millis(500))).unwrap();
    event(&mut programs, |what| matches!(what, EventKind::PathMtuChanged { from: 1500, to: 1300, .. }));

    // A reader that comes back names the last event that it has seen, and gets those after it
    // again.
    let replay = sites.machine.with_files(|| {
        let mut connection = UnixStream::connect(SOCKET).unwrap();
        let path = format!("{}?after={}", Endpoint::Events.path(), up.seq - 1);
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        connection
    });

    // With its daemon ends what a follower follows.
    drop(b);
    a.signal(Signal::SIGINT);
    let (status, log) = a.wait();
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("the peer is up peer=b").count(), 1, "{log}");
    assert_eq!(log.matches("path MTU changed: ").count(), 1, "{log}");
    let (status, said) = people.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.matches("peer b  up").count(), 1, "{said}");
    assert_eq!(said.matches("path mtu 1300, was 1500").count(), 1, "{said}");
    assert!(said.ends_with("adit: the daemon of overlay `a` has ended"), "{said}");
    let (_, said) = programs.wait();
    assert_eq!(said.matches("\"peer-up\"").count(), 1, "{said}");
    let replayed = std::io::read_to_string(replay).unwrap();
    let first = replayed.lines().find(|line| line.starts_with("id: "));
    assert_eq!(first, Some(format!("id: {}", up.seq).as_str()), "{replayed}");
    for event in ["\"peer-up\"", "\"path-mtu-changed\""] {
        assert_eq!(replayed.matches(event).count(), 1, "{replayed}");
    }
}

/// The numbers follow the file while the overlay runs, and the answers to what changes it are as
/// described.
#[test(root)]
fn an_applied_file_moves_the_numbers() {
    let sites = Sites::with_dataplane("userspace");
    let a = sites.run_a(&[]);
    let text = std::fs::read_to_string(sites.file("a.toml")).unwrap();
    let listens = || {
        let address: SocketAddr = SCRAPED.parse().unwrap();
        sites.machine.within(sites.network.gateway_a.ns(), || TcpStream::connect(address).is_ok())
    };
    let description = openapi();
    let post = |endpoint: Endpoint, body: &Value, code: u16| {
        let answer = sites
            .machine
            .with_files(|| http::post(UnixStream::connect(SOCKET).unwrap(), endpoint.path(), body));
        assert_eq!(answer.code, code, "{answer:?}");
        let described = &description["paths"][endpoint.path()]["post"]["responses"][code.to_string()];
        assert_fits(&description, &described["content"]["application/json"]["schema"], &answer.json());
        answer.json()
    };
    let apply = |text: &str, code| {
        let file = sites.file("a.toml");
        post(Endpoint::Apply, &json!({ "file": file, "text": text, "confirm_seconds": null }), code)
    };
    // The threads that forward, by their ids.
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", a.pid())).unwrap();
        let mut ids: Vec<_> = tasks.map(|task| task.unwrap().file_name()).collect();
        ids.sort();
        ids
    };
    let before = threads();
    assert!(!listens());
    let with_metrics = text.replace("[site]", &format!("[site]\nmetrics = \"{SCRAPED}\""));
    let applied = apply(&with_metrics, 200);
    assert_eq!(applied["changes"].as_array().unwrap().len(), 1, "{applied}");
    assert_eq!(threads(), before, "what forwards is not touched");
    wait_until(PATIENCE, "the numbers are served", listens);
    assert_eq!(scrape(&sites, "/metrics").code, 200);

    let refused = apply("[site]", 422);
    assert!(refused["error"].as_str().unwrap().contains("`name` is missing"), "{refused}");
    post(Endpoint::Apply, &json!({ "file": "a.toml" }), 422);
    assert_eq!(post(Endpoint::Confirm, &Value::Null, 200), json!(false));
    assert!(listens(), "nothing has changed");
    post(Endpoint::Reload, &Value::Null, 200);
    wait_until(PATIENCE, "nobody serves them any more", || !listens());
}

/// However the daemon was started, nobody but root asks it, or puts another socket in its place.
#[test(root)]
fn only_root_may_ask() {
    const NOBODY: u32 = 65534;
    let sites = Sites::with_dataplane("userspace");
    let gateway = sites.network.gateway_a.ns();
    let mut without_umask = Command::new("sh");
    without_umask.args(["-c", &format!("umask 0 && exec {PROGRAM} run {}", sites.file("a.toml"))]);
    let mut a = sites.machine.start_command(gateway, without_umask);
    a.wait_for("ready");

    sites.machine.with_files(|| {
        let socket = std::fs::metadata(SOCKET).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!((socket.permissions().mode() & 0o7777, socket.uid()), (0o600, 0));
        for directory in ["/run/adit", "/var/lib/adit", "/var/lib/adit/a"] {
            let found = std::fs::metadata(directory).unwrap();
            assert_eq!((found.permissions().mode() & 0o7777, found.uid()), (0o755, 0), "{directory}");
        }
    });
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        sites.machine.run(gateway, command.args(arguments).uid(NOBODY).gid(NOBODY))
    };
    for command in ["status", "drops", "events"] {
        let said = as_nobody(&[command, "a"]).with(1);
        assert_eq!(
            said.stderr,
            "adit: cannot connect to /run/adit/a.sock: Permission denied (os error 13); run as root\n",
            "{command}"
        );
    }
    // Without a name, it is not as if none were running.
    for command in ["status", "drops", "events"] {
        let said = as_nobody(&[command]).with(1);
        assert!(said.stderr.contains("cannot connect to /run/adit/a.sock"), "{command}: {said:?}");
    }
    for arguments in [&["status", "-j"][..], &["status", "a", "-j"]] {
        let said = as_nobody(arguments).with(1).json();
        assert_eq!((&said["schema"], &said["overlays"]), (&2.into(), &serde_json::json!([])), "{said}");
        assert_eq!(said["unreadable"][0]["name"], "a", "{said}");
    }
    sites.machine.adit(gateway, &["status", "a"]).ok();
    a.end(Signal::SIGINT);
}

#[test(root)]
fn what_was_dropped_is_listed_with_the_reason() {
    let sites = Sites::with_dataplane("userspace");
    let gateway = &sites.network.gateway_a;
    let drops = |arguments: &[&str]| sites.machine.adit(gateway.ns(), &[&["drops"], arguments].concat());
    let said = drops(&[]).with(1);
    assert_eq!(said.stderr, "adit: no overlay is running; `adit up FILE` starts one\n");
    let _a = sites.run_a(&[]);
    assert_eq!(drops(&["a"]).ok().stdout, "site a  nothing was dropped\n");

    // A source that is not behind A, through A's device.
    let stranger: Ipv4Net = "198.51.100.1/32".parse().unwrap();
    gateway.address("lo", stranger).unwrap();
    let mut route = sites.routes_of_a().remove(0);
    route.preferred_source = Some(stranger.addr().into());
    gateway.netlink().unwrap().replace_route(&route).unwrap();
    assert!(!reaches(gateway, INSIDE_B).unwrap());
    let text = drops(&[]).ok().stdout;
    let (text, ago) = text.rsplit_once(", ").unwrap();
    assert!(ago.ends_with(" s ago\n"), "{ago}");
    insta::assert_snapshot!(text, @"
    site a
      inner-source-denied  1  RFC 2827 section 4  Neither our networks nor a peer's hold the source; the sender gets Administratively Prohibited.
                           last from 198.51.100.1, peer b
    ");
    let all = drops(&["-j"]).ok().json();
    assert_eq!(keys(&all), ["overlays", "schema", "unreadable"]);
    assert_eq!((&all["schema"], &all["unreadable"]), (&json!(2), &json!([])));
    let json = drops(&["a", "-j"]).ok().json()["overlays"][0].clone();
    assert_eq!((&json["schema"], &json["site"]), (&json!(2), &json!("a")));
    let counted: Vec<&Value> =
        json["drops"].as_array().unwrap().iter().filter(|drop| drop["count"] != 0).collect();
    assert_eq!(counted.len(), 1, "{json}");
    assert_eq!(keys(counted[0]), ["count", "explanation", "last", "reason", "section", "stage"]);
    assert_eq!(counted[0]["last"]["source"], "198.51.100.1");
    assert_eq!(counted[0]["reason"], "inner-source-denied");
}
