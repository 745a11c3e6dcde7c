//! `adit lab`: build the two-site network, test it, and remove it.

use std::process::ExitCode;

use adit_lab::lab::{Event, LabOptions, run};
use adit_linux::netns;

use crate::Failure;
use crate::cli::LabArgs;
use crate::output::Output;

pub(crate) fn lab(args: &LabArgs, output: &Output) -> Result<ExitCode, Failure> {
    if !netns::is_privileged() {
        netns::enter_user_namespace()?;
    }
    let options = LabOptions { pcap: args.pcap.clone(), throughput: !args.no_throughput };
    let report = run(&options, &mut |event| {
        if !output.is_json() {
            show(&event, output);
        }
    })?;
    if output.is_json() {
        output.line(serde_json::to_string(&report)?);
    } else if report.ok {
        output.line(format_args!("\nall {} checks passed; nothing is left behind", report.checks.len()));
    } else {
        let failed = report.checks.iter().filter(|check| !check.ok).count();
        output.line(format_args!("\n{failed} of {} checks failed", report.checks.len()));
    }
    if let Some(path) = args.pcap.as_ref().filter(|_| !output.is_json()) {
        output.line(format_args!("the underlay's capture is in {}", path.display()));
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(event: &Event<'_>, output: &Output) {
    match event {
        Event::Diagram(diagram) => output.line(format_args!("{diagram}")),
        Event::Dataplane(plane, reason) => output.line(format_args!("data plane {plane} ({reason})\n")),
        Event::OverIpv6(plane, reason) => {
            output.line(format_args!("\nover the underlay of IPv6: data plane {plane} ({reason})\n"));
        }
        Event::Checked(check) => {
            let word = match (check.ok, output.colour()) {
                (true, true) => "\x1b[32mok\x1b[0m    ",
                (true, false) => "ok    ",
                (false, true) => "\x1b[31mFAILED\x1b[0m",
                (false, false) => "FAILED",
            };
            output.line(format_args!("{word} {:<15} {}", check.name, check.detail));
        }
        Event::Captured { what, lines } => {
            output.line(format_args!("\n{what}, captured on the underlay:"));
            lines.iter().for_each(|line| output.line(format_args!("  {line}")));
            output.line("");
        }
        Event::Measured(throughput) => {
            let ratio = throughput.tunnel_gbps / throughput.underlay_gbps * 100.0;
            output.line(format_args!(
                "\none TCP stream: bare underlay {:.1} Gb/s, tunnel {:.1} Gb/s ({ratio:.0} %)",
                throughput.underlay_gbps, throughput.tunnel_gbps
            ));
        }
    }
}
