//! The plan: what a file would change, on an empty machine and beside what runs.

use super::world::{Kernel, PEER_C, TUN, World, config, needs, with_ipip};

/// A plan: what runs, what is asked for, and the lines.
type Row<'a> = (Option<&'a str>, String, &'a [&'a str]);

fn check(rows: &[Row<'_>], kernel: Kernel) {
    for (running, file, expected) in rows {
        let (running, wanted) = (running.map(config), config(file));
        kernel.run(&|mut world: World| {
            let _overlay = running.as_ref().map(|running| world.bring_up(running).unwrap());
            let before = world.view();
            assert_eq!(world.plan(running.as_ref(), &wanted).unwrap(), *expected, "{file}");
            assert_eq!(world.view(), before, "a plan changes nothing");
        });
    }
}

fn tun_rows() -> Vec<Row<'static>> {
    vec![
        (
            None,
            TUN.to_owned(),
            &[
                "+ site a underlay 10.1.1.1 networks 172.16.17.0/24",
                "+ peer b underlay 10.1.1.2 networks 192.168.199.0/24",
                "+ device ipipA mtu 1480",
                "+ route unreachable 192.168.199.0/24 metric 4278987208",
                "+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1",
            ],
        ),
        (Some(TUN), TUN.to_owned(), &[]),
        (
            Some(TUN),
            format!("{TUN}[tunnel]\nmtu = 1400\n"),
            &["~ site mtu \"auto\" -> 1400", "~ device ipipA mtu 1480 -> 1400"],
        ),
        (
            Some(TUN),
            TUN.replace("192.168.199.0/24", "192.168.198.0/24"),
            &[
                "~ peer b networks +192.168.198.0/24 networks -192.168.199.0/24",
                "+ route unreachable 192.168.198.0/24 metric 4278987208",
                "+ route 192.168.198.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1",
                "- route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1",
                "- route unreachable 192.168.199.0/24 metric 4278987208",
            ],
        ),
        (
            Some(TUN),
            format!("{TUN}{PEER_C}"),
            &[
                "+ peer c underlay 10.1.1.3 networks 10.3.0.0/16,10.4.0.0/16",
                "+ route unreachable 10.3.0.0/16 metric 4278987208",
                "+ route unreachable 10.4.0.0/16 metric 4278987208",
                "+ route 10.3.0.0/16 via 10.1.1.3 dev ipipA onlink src 172.16.17.1",
                "+ route 10.4.0.0/16 via 10.1.1.3 dev ipipA onlink src 172.16.17.1",
            ],
        ),
    ]
}

fn ipip_rows() -> Vec<Row<'static>> {
    vec![
        (
            None,
            with_ipip(TUN),
            &[
                "+ site a underlay 10.1.1.1 networks 172.16.17.0/24",
                "+ peer b underlay 10.1.1.2 networks 192.168.199.0/24",
                "+ table adit_a",
                "+ device ipipA mtu 1480",
                "+ route unreachable 192.168.199.0/24 metric 4278987208",
                "+ route 192.168.199.0/24 dev ipipA src 172.16.17.1",
            ],
        ),
        (
            None,
            with_ipip(&format!("{TUN}{PEER_C}")),
            &[
                "+ site a underlay 10.1.1.1 networks 172.16.17.0/24",
                "+ peer b underlay 10.1.1.2 networks 192.168.199.0/24",
                "+ peer c underlay 10.1.1.3 networks 10.3.0.0/16,10.4.0.0/16",
                "+ table adit_a",
                "+ device ipipA-b mtu 1480",
                "+ device ipipA-c mtu 1480",
                "+ route unreachable 192.168.199.0/24 metric 4278987208",
                "+ route unreachable 10.3.0.0/16 metric 4278987208",
                "+ route unreachable 10.4.0.0/16 metric 4278987208",
                "+ route 192.168.199.0/24 dev ipipA-b src 172.16.17.1",
                "+ route 10.3.0.0/16 dev ipipA-c src 172.16.17.1",
                "+ route 10.4.0.0/16 dev ipipA-c src 172.16.17.1",
            ],
        ),
    ]
}

#[test]
fn a_plan_lists_what_changes_on_the_model() {
    check(&tun_rows(), Kernel::Model);
    check(&ipip_rows(), Kernel::Model);
}

#[test(root)]
fn a_plan_lists_what_changes_on_the_kernel() {
    check(&tun_rows(), Kernel::Real);
}

#[test(root, needs::ipip)]
fn a_plan_lists_what_changes_for_the_ipip_driver() {
    check(&ipip_rows(), Kernel::Real);
}
