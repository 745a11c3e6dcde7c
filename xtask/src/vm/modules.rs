//! The load order of kernel modules, from the dependencies in `depmod`'s `modules.dep`.

use std::collections::HashMap;

/// The dependencies of a kernel's modules.
pub(crate) struct Modules<'a> {
    /// A module's file and the files that it depends on, nearest first, by the module's name.
    by_name: HashMap<String, (&'a str, Vec<&'a str>)>,
    /// Modules that are built into the kernel and have no file.
    built_in: Vec<String>,
}

impl<'a> Modules<'a> {
    /// Parses the contents of `modules.dep` and `modules.builtin`.
    pub(crate) fn new(dependencies: &'a str, built_in: &str) -> Self {
        let by_name = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (name(file), (file, needs.split_whitespace().collect())))
            .collect();
        Self { by_name, built_in: built_in.lines().map(name).collect() }
    }

    /// The files to load for the modules `wanted`: each once, and after those that it depends on.
    ///
    /// # Errors
    /// Fails if a module is neither a file nor built in.
    pub(crate) fn in_order(&self, wanted: &[&str]) -> Result<Vec<&'a str>, String> {
        let mut order = Vec::new();
        for &module in wanted {
            match self.by_name.get(&name(module)) {
                // depmod lists indirect dependencies too, and lists a module before its own
                // dependencies.
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

/// The kernel's name of a module, from its file: `kernel/net/x-y.ko.xz` is `x_y`.
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
    fn a_module_follows_its_dependencies() {
        assert_eq!(
            in_order(&["ipip"]).unwrap(),
            ["kernel/net/ipv4/tunnel4.ko", "kernel/net/ipv4/ip_tunnel.ko", "kernel/net/ipv4/ipip.ko"]
        );
    }

    #[test]
    fn a_shared_dependency_is_loaded_once() {
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
    fn a_module_is_found_by_the_kernels_name() {
        assert_eq!(in_order(&["aes_x"]).unwrap(), ["kernel/crypto/aes-x.ko.xz"]);
    }

    #[test]
    fn a_built_in_module_needs_no_file_and_an_unknown_one_is_an_error() {
        assert!(in_order(&["ext4"]).unwrap().is_empty());
        assert_eq!(in_order(&["gre"]).unwrap_err(), "the guest's kernel has no module gre");
    }
}
