//! The configuration file: format, checks, diagnostics, JSON Schema.
//!
//! [`Config::parse`] reads the text of one site's file and gives either a [`Config`], in which
//! every value is valid and fits the others, or [`Problems`]: every mistake of the file at once,
//! each with its place, what was found, what was expected and what to write instead.
//!
//! The text becomes a TOML tree with the place of each value (`syntax` reports what is not TOML).
//! `read` turns the tree into values and goes on after a mistake. `check` compares the values with
//! each other. `schema` describes every key for all of them. Only `load` makes system calls.
//!
//! ```
//! use adit_config::Config;
//!
//! let text = r#"
//! [site]
//! name     = "a"
//! underlay = "10.1.1.1"
//! networks = ["172.16.17.5/24"]
//! "#;
//! let problems = Config::parse("a.toml", text).unwrap_err();
//! assert_eq!(problems.iter().next().unwrap().line, 5);
//! assert!(problems.to_string().contains("172.16.17.0/24"), "the help has the right prefix");
//! ```

mod check;
mod decode;
mod duration;
mod incremental;
mod json_schema;
mod listen;
mod load;
mod model;
mod name;
mod path_options;
mod problem;
mod read;
mod reference;
mod relay;
mod schema;
mod scope;
mod source;
mod suggest;
mod syntax;
mod underlay;
mod write;

pub use adit_peers::{
    Conflict, DeltaError, Keepalive, NameError, Path, PathOptions, Peer, PeerDelta, PeerName, PeerSet, Relay,
    UnderlayAddresses,
};
pub use json_schema::json_schema;
pub use load::{LoadError, read_file, read_regular_file};
pub use model::{
    Config, DataplaneChoice, DscpChoice, EcnChoice, MAX_MTU, MIN_MTU, Mtu, OWN_DEVICES, SiteConfig, Ttl,
    TunnelOptions, Underlay,
};
pub use name::{DeviceName, NetnsName, SiteName};
pub use problem::{Place, Problem, Problems};
pub use reference::reference;
