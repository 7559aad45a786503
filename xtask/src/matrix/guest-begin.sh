#!/bin/busybox sh
# The first process of a virtual machine: mounts what a host has and loads modules.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/sbin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs security /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
ifconfig lo 127.0.0.1 up
echo "up"
mkdir -p /out
for module in /modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module" || echo "refused: $module"
done
