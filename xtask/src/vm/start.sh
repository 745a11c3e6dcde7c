# The guest's second program, run on its root: mounts file systems and runs the job's command.
# Its own output goes to the kernel's console, which the host writes to a file. The command has
# separate channels. xtask prepends a line that sets $modules.
job=/run/adit-vm
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mkdir -p /dev/pts /dev/shm /out /lib/modules
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 out /out
# From here on the kernel loads modules on demand, as on any Debian: ipip for an ipip device.
mount --bind "$modules" /lib/modules
# Except tun: programs open its device node, and only the module creates that.
modprobe tun && chmod 666 /dev/net/tun
ip link set lo up

port() {
    for port in /sys/class/virtio-ports/*; do
        if [ "$(cat "$port/name")" = "$1" ]; then echo "/dev/${port##*/}"; fi
    done
}
# A port can be opened only once. The command gets pipes, which it may reopen.
mkfifo $job/stdout $job/stderr
cat <$job/stdout >"$(port stdout)" &
stdout=$!
cat <$job/stderr >"$(port stderr)" &
stderr=$!
mkdir /sys/fs/cgroup/command
(
    echo 0 >/sys/fs/cgroup/command/cgroup.procs
    exec setsid --wait bash $job/command.sh </dev/null >$job/stdout 2>$job/stderr
)
code=$?
# A daemon that the command left behind would keep the pipes open.
echo 1 >/sys/fs/cgroup/command/cgroup.kill
wait $stdout $stderr
echo "exit $code" >"$(port status)"
sync
exec $job/busybox poweroff -f
