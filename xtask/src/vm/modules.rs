//! Which modules need which, from `depmod`'s `modules.dep`.

use std::collections::HashMap;

/// `modules.dep`, by the module's name.
pub(crate) struct Modules<'a> {
    /// The file, and the files that it needs, the nearest first.
    by_name: HashMap<String, (&'a str, Vec<&'a str>)>,
    /// What `modules.builtin` names: is there without a file.
    built_in: Vec<String>,
}

impl<'a> Modules<'a> {
    /// Reads the two files' text.
    pub(crate) fn new(dependencies: &'a str, built_in: &str) -> Self {
        let by_name = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (name(file), (file, needs.split_whitespace().collect())))
            .collect();
        Self { by_name, built_in: built_in.lines().map(name).collect() }
    }

    /// The files to load for `wanted`, each after what it needs and none twice.
    ///
    /// # Errors
    /// The kernel has no module of that name, nor the thing itself.
    pub(crate) fn in_order(&self, wanted: &[&str]) -> Result<Vec<&'a str>, String> {
        let mut order = Vec::new();
        for &module in wanted {
            match self.by_name.get(&name(module)) {
                // depmod names all that is needed, not only the next, and what needs nothing last.
                Some((file, needs)) => {
                    for &file in needs.iter().rev().chain([file]) {
                        if !order.contains(&file) {
                            order.push(file);
                        }
                    }
                }
                None if self.built_in.contains(&name(module)) => {}
                None => return Err(format!("the guest's kernel has no module {module}")),
            }
        }
        Ok(order)
    }
}

/// The name that the kernel knows a module by: `kernel/net/x-y.ko.xz` is `x_y`.
fn name(file: &str) -> String {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/net/ipv4/ipip.ko: kernel/net/ipv4/ip_tunnel.ko kernel/net/ipv4/tunnel4.ko
kernel/net/ipv4/tunnel4.ko:
kernel/net/ipv4/ip_tunnel.ko:
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio.ko
kernel/net/9p/9pnet.ko:
kernel/crypto/aes-x.ko.xz:
";

    fn in_order(wanted: &[&str]) -> Result<Vec<&'static str>, String> {
        Modules::new(DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n").in_order(wanted)
    }

    #[test]
    fn what_is_needed_comes_first() {
        assert_eq!(
            in_order(&["ipip"]).unwrap(),
            ["kernel/net/ipv4/tunnel4.ko", "kernel/net/ipv4/ip_tunnel.ko", "kernel/net/ipv4/ipip.ko"]
        );
    }

    #[test]
    fn what_two_need_is_loaded_once() {
        assert_eq!(
            in_order(&["9p", "9pnet_virtio"]).unwrap(),
            [
                "kernel/fs/netfs/netfs.ko",
                "kernel/fs/fscache/fscache.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/drivers/virtio/virtio.ko",
                "kernel/net/9p/9pnet_virtio.ko"
            ]
        );
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(in_order(&["aes_x"]).unwrap(), ["kernel/crypto/aes-x.ko.xz"]);
    }

    #[test]
    fn what_is_built_in_needs_no_file_and_the_rest_is_named() {
        assert!(in_order(&["ext4"]).unwrap().is_empty());
        assert_eq!(in_order(&["gre"]).unwrap_err(), "the guest's kernel has no module gre");
    }
}
