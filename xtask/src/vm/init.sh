#!/job/busybox sh
# The guest's init: makes the host's files the guest's root, read-only, and switches to it.
# Modules load in the order of their names, which begin with a number.
b=/job/busybox
$b mkdir -p /dev /host /written /root
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
    $b insmod "$module" || echo "init: cannot load $module"
done
# The guest may cache what it has read: the host's files change little while it runs.
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 root /host
$b mount -t tmpfs -o size=75% tmpfs /written
$b mkdir /written/upper /written/work
$b mount -t overlay -o lowerdir=/host,upperdir=/written/upper,workdir=/written/work overlay /root
$b mount -t tmpfs -o mode=755 tmpfs /root/run
$b mkdir /root/run/adit-vm
$b cp /job/* /root/run/adit-vm/
$b mount --move /dev /root/dev
exec $b switch_root /root /bin/bash /run/adit-vm/start.sh
