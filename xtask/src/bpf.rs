//! The command `cargo xtask bpf`: it builds the eBPF programs. The object file is committed, so
//! that a build of Adit does not need the eBPF tools.
//!
//! The eBPF target needs the sources of `core`. rustup's toolchains lack them; Debian's has them.
//! Compiler and linker need the same LLVM, so both come from Debian.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{debian, run};

/// Rust 1.96 and LLVM 22. They do not replace rustup's toolchain.
const PACKAGES: &[&str] =
    &["rustc-web", "cargo-web", "rust-web-src", "llvm-22", "llvm-22-dev", "libpolly-22-dev", "zlib1g-dev"];
const LLVM: &str = "/usr/lib/llvm-22";
/// The version of bpf-linker.
const LINKER: &str = "0.13.0";
const TARGET: &str = "bpfel-unknown-none";
/// The committed object file.
const OBJECT: &str = "crates/adit-dataplane/object/adit.bpf.o";

/// Builds the object file and writes it to [`OBJECT`]. With `check`, compares it instead.
pub(crate) fn bpf(check: bool) -> Result<(), String> {
    let missing = debian::install(PACKAGES);
    if !missing.is_empty() {
        return Err(format!(
            "the eBPF programs need these Debian packages, which could not be installed: {} \
             (run as root on Debian)",
            missing.join(" ")
        ));
    }
    let target = run::target_directory()?;
    let tools = run::tool_directory(&format!("bpf-linker-{LINKER}"))?;
    install_linker(&tools)?;
    let built = build(&target.join("bpf"), &tools)?;
    let object =
        std::fs::read(&built).map_err(|error| format!("cannot read {}: {error}", built.display()))?;
    let committed = run::root().join(OBJECT);
    let found = std::fs::read(&committed).unwrap_or_default();
    if found == object {
        println!("{OBJECT} matches the sources, {} bytes", object.len());
        return Ok(());
    }
    if check {
        return Err(format!(
            "{OBJECT} ({} bytes) differs from what the sources build ({} bytes): run `cargo xtask bpf` and commit it",
            found.len(),
            object.len()
        ));
    }
    std::fs::write(&committed, &object)
        .map_err(|error| format!("cannot write {}: {error}", committed.display()))?;
    println!("wrote {OBJECT}, {} bytes", object.len());
    Ok(())
}

/// Installs bpf-linker, built against the LLVM of Debian's compiler.
fn install_linker(tools: &Path) -> Result<(), String> {
    if tools.join("bin/bpf-linker").is_file() {
        return Ok(());
    }
    println!("installing bpf-linker {LINKER} into {}", tools.display());
    let root = tools.to_string_lossy();
    let arguments = ["install", "--quiet", "--locked", "--root", &root, "--version", LINKER];
    let features = ["--no-default-features", "--features", "llvm-22", "bpf-linker"];
    run::cargo(&[&arguments[..], &features].concat(), &[("LLVM_PREFIX", LLVM), ("LLVM_SYS_221_PREFIX", LLVM)])
}

fn build(target: &Path, tools: &Path) -> Result<PathBuf, String> {
    let root = run::root();
    let cargo_home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .map_err(|_| "neither CARGO_HOME nor HOME is set".to_owned())?;
    // Debug lines name files. Remapped paths give the same bytes in every directory.
    let flags = [
        "-C linker=bpf-linker -C link-arg=--btf -C debuginfo=2 -C target-cpu=v3 -D warnings".to_owned(),
        format!("--remap-path-prefix={}=.", root.display()),
        format!("--remap-path-prefix={cargo_home}=/cargo"),
    ];
    run::check(
        Command::new("/usr/bin/cargo")
            .args(["build", "--release", "--locked", "--quiet", "-Z", "build-std=core", "--target", TARGET])
            .current_dir(root.join("crates/adit-ebpf"))
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("RUSTC", "/usr/bin/rustc")
            // `build-std` is unstable. A stable compiler accepts it with this variable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", target)
            .env("PATH", format!("{}:/usr/bin:/bin", tools.join("bin").display()))
            .env("RUSTFLAGS", flags.join(" ")),
    )?;
    let whole = target.join(TARGET).join("release/adit");
    let stripped = target.join("adit.bpf.o");
    strip(&whole, &stripped)?;
    Ok(stripped)
}

/// Removes what the kernel does not read. Renames local functions, because their names contain a
/// hash of the build directory.
fn strip(whole: &Path, stripped: &Path) -> Result<(), String> {
    let names = run::output(Command::new(format!("{LLVM}/bin/llvm-nm")).args(["-j"]).arg(whole))
        .ok_or_else(|| format!("cannot list the symbols of {}", whole.display()))?;
    let mut command = Command::new(format!("{LLVM}/bin/llvm-objcopy"));
    command.arg("--strip-debug");
    for (number, name) in
        names.lines().filter(|name| name.starts_with("_R") || name.starts_with("_ZN")).enumerate()
    {
        command.arg(format!("--redefine-sym={name}=local_{number}"));
    }
    run::check(command.arg(whole).arg(stripped))
}
