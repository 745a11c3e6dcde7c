//! The command line, and what it means for a run.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Parser;

use crate::error::BenchError;
use crate::measure::{Lengths, Measure};
use crate::peers::{Contender, Families, Tools};

const DOCUMENT: &str = "docs/benchmarks.md";
/// The guest's directory that its host reads.
const GUEST_TABLES: &str = "/out/benchmarks-guest.md";
const GUEST_JSON: &str = "/out/benchmarks-guest.json";
const ROUNDS: usize = 7;
/// An emulated machine is about ten times slower, and only two ratios are wanted.
const GUEST_ROUNDS: usize = 5;

/// Measures Adit beside the bare underlay and other tunnels.
#[derive(Debug, Parser)]
#[command(name = "adit-bench", version)]
pub(crate) struct Options {
    /// How many rounds [default: 7, 5 with --guest, 1 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Take a short round to show that everything works. Writes no document without --document.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Measure only some: `ebpf`, `userspace`, `families` (IPv6 inside and outside), or contenders
    /// such as `adit-ebpf,vxlan`. The bare veth is always included. Writes no document without
    /// --document.
    #[arg(long, value_name = "WHO", value_delimiter = ',', value_parser = group)]
    only: Vec<Group>,

    /// Measure what makes sense in an emulated machine whose kernel has an ipip driver. Writes its
    /// tables to /out/benchmarks-guest.md, and JSON beside them.
    #[arg(long, conflicts_with = "only")]
    pub(crate) guest: bool,

    /// Measure nothing, and put a guest's tables from FILE into the document.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "guest", "soak", "rounds"])]
    pub(crate) insert: Option<PathBuf>,

    /// Also record the memory over a minute of full load.
    #[arg(long)]
    pub(crate) soak: bool,

    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// The document to put the tables into [default: docs/benchmarks.md].
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,

    /// The `adit` to measure [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    adit: Option<PathBuf>,

    /// An `adit` of an earlier commit, whose planes are measured in the same rounds.
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,

    /// The directory of `cargo install --root` with vpncloud.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench-tools")]
    tools: PathBuf,
}

/// A value of `--only`.
#[derive(Clone, Debug)]
struct Group(Vec<Contender>);

fn group(word: &str) -> Result<Group, String> {
    use Contender::{Adit, AditEbpf, AditMany, Control, Fastd, Ipip, OpenVpn, Tinc, Vpncloud, Vxlan};
    match word {
        "ebpf" => Ok(Group(vec![AditEbpf, AditMany, Control, Vxlan, Ipip])),
        "families" => {
            let of = |plane: fn(Families) -> Contender| Families::ALL.into_iter().map(plane);
            let all = of(Contender::EbpfOf).chain(of(Contender::UserspaceOf));
            Ok(Group(all.chain([AditEbpf, Adit, Control, Contender::BareV6]).collect()))
        }
        "userspace" => Ok(Group(vec![Adit, Vxlan, Tinc, Fastd, OpenVpn, Vpncloud])),
        _ => match Contender::ALL.iter().find(|contender| contender.slug() == word) {
            Some(&contender) => Ok(Group(vec![contender])),
            None => {
                let slugs: Vec<&str> = Contender::ALL.iter().map(|contender| contender.slug()).collect();
                Err(format!("expected `ebpf`, `userspace`, `families` or one of {}", slugs.join(", ")))
            }
        },
    }
}

/// What to do with the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Print them.
    Print,
    /// Put them between the markers of a document.
    Document(PathBuf),
    /// Write only the tables and the JSON, for the host of the guest.
    Guest { tables: PathBuf, json: PathBuf },
}

impl Options {
    /// The contenders that take part.
    pub(crate) fn contenders(&self) -> BTreeSet<Contender> {
        use Contender::{Adit, AditBefore, AditEbpf, Bare, Control, Ipip, UserspaceBefore};
        let mut contenders: BTreeSet<Contender> = if self.guest {
            [Bare, AditEbpf, Control, Adit, Ipip].into()
        } else if self.only.is_empty() {
            Contender::ALL.into()
        } else {
            self.only.iter().flat_map(|group| &group.0).copied().chain([Bare]).collect()
        };
        // Each plane's earlier version is measured beside the plane.
        for (plane, before) in [(AditEbpf, AditBefore), (Adit, UserspaceBefore)] {
            contenders.remove(&before);
            if self.before.is_some() && contenders.contains(&plane) {
                contenders.insert(before);
            }
        }
        contenders
    }

    /// The measures to take.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        // Only ratios mean something in an emulated machine, and a second generator adds nothing to
        // them.
        Measure::ALL.into_iter().filter(|measure| !(self.guest && measure.is_iperf())).collect()
    }

    /// The lengths of measurements and the number of rounds.
    pub(crate) fn lengths(&self) -> (Lengths, usize) {
        let (lengths, rounds) = match (self.quick, self.guest) {
            (true, _) => (Lengths::QUICK, 1),
            (false, true) => (Lengths::FULL, GUEST_ROUNDS),
            (false, false) => (Lengths::FULL, ROUNDS),
        };
        (lengths, self.rounds.map_or(rounds, usize::from))
    }

    /// The document, whatever is measured.
    pub(crate) fn document(&self) -> PathBuf {
        self.document.clone().unwrap_or_else(|| PathBuf::from(DOCUMENT))
    }

    /// Where the tables go. Tables of some contenders, or of a short run, do not replace others by
    /// default.
    pub(crate) fn output(&self) -> Output {
        match &self.document {
            Some(path) if self.guest => {
                Output::Guest { tables: path.clone(), json: path.with_extension("json") }
            }
            Some(path) => Output::Document(path.clone()),
            None if self.guest => Output::Guest { tables: GUEST_TABLES.into(), json: GUEST_JSON.into() },
            None if self.quick || !self.only.is_empty() => Output::Print,
            None => Output::Document(DOCUMENT.into()),
        }
    }

    /// Where the programs are.
    pub(crate) fn tools(&self) -> Result<Tools, BenchError> {
        let absolute =
            |path: PathBuf| std::path::absolute(&path).map_err(BenchError::io("learn the working directory"));
        let adit = match &self.adit {
            Some(adit) => adit.clone(),
            None => std::env::current_exe()
                .map_err(BenchError::io("learn where this program is"))?
                .with_file_name("adit"),
        };
        let before = self.before.clone().map(absolute).transpose()?;
        Ok(Tools { adit: absolute(adit)?, before, tools: absolute(self.tools.clone())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let arguments = [&["adit-bench"], arguments].concat();
        Options::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn the_bare_veth_is_always_measured() -> Result<(), String> {
        assert_eq!(options(&[])?.contenders().len(), Contender::ALL.len() - 2);
        let before = options(&["--only", "adit-ebpf", "--before", "old/adit"])?.contenders();
        assert_eq!(before, [Contender::Bare, Contender::AditEbpf, Contender::AditBefore].into());
        let both = options(&["--before", "old/adit"])?.contenders();
        assert_eq!(both, Contender::ALL.into());
        let some = options(&["--only", "adit-ebpf,vxlan"])?.contenders();
        assert_eq!(some, [Contender::Bare, Contender::AditEbpf, Contender::Vxlan].into());
        let ebpf = options(&["--only", "ebpf"])?.contenders();
        assert!(ebpf.contains(&Contender::Bare) && !ebpf.contains(&Contender::Tinc));
        let error = options(&["--only", "tincd"]).unwrap_err();
        assert!(
            error.contains("expected `ebpf`, `userspace`, `families` or one of bare, adit-ebpf"),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn only_a_full_run_writes_the_document_unasked() -> Result<(), String> {
        assert_eq!(options(&[])?.output(), Output::Document("docs/benchmarks.md".into()));
        assert_eq!(options(&["--quick"])?.output(), Output::Print);
        assert_eq!(options(&["--only", "ebpf"])?.output(), Output::Print);
        let asked = options(&["--quick", "--document", "x.md"])?.output();
        assert_eq!(asked, Output::Document("x.md".into()));
        let guest = Output::Guest { tables: GUEST_TABLES.into(), json: GUEST_JSON.into() };
        assert_eq!(options(&["--guest", "--quick"])?.output(), guest);
        Ok(())
    }

    #[test]
    fn a_guest_measures_what_its_kernel_can_be_compared_with() -> Result<(), String> {
        let options = options(&["--guest"])?;
        assert!(options.contenders().contains(&Contender::Ipip));
        assert!(!options.measures().contains(&Measure::IperfTcp));
        assert_eq!(options.lengths().1, 5);
        Ok(())
    }
}
