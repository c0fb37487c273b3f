#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a machine for the test: makes a root that looks like this machine's, with
# nothing of it running, and turns into systemd there. In its namespaces it may not touch
# more of the machine it runs on than the directory DIR.
# usage: machine.sh DIR CGROUP CONSOLE ADDRESS GATEWAY; a line on stdin says that eth0 is there
set -eu
dir=$1 cgroup=$2 console=$3 address=$4 gateway=$5
if [ "${6-}" != inside ]; then
    read -r _
    echo 0 >"$cgroup/cgroup.procs"
    exec unshare --cgroup /bin/sh "$0" "$@" inside
fi
mount --make-rprivate /
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"

mkdir -p "$dir/upper" "$dir/work" "$dir/root" "$dir/sysfs"
mount -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
mount -t sysfs -o ro sysfs "$dir/sysfs"
cd "$dir/root"
mkdir -p proc sys dev run tmp etc/systemd .old
mount -t proc proc proc
# What is not this network namespace's is the real machine's.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,rw proc/sys/net
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

mount -t tmpfs -o mode=755 sys sys
mkdir -p sys/devices sys/class/net sys/fs/cgroup sys/hypervisor
mount --bind "$dir/sysfs/devices" sys/devices
mount --bind "$dir/sysfs/class/net" sys/class/net
mount -t cgroup2 cgroup2 sys/fs/cgroup
echo ec2e1916-9099-7caf-fd21-012345abcdef >sys/hypervisor/uuid # as on EC2
mount -o remount,ro sys

mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm
for name in null zero full random urandom tty; do
    : >dev/$name
    mount --bind /dev/$name dev/$name
done
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
: >dev/console
mount --bind "$console" dev/console

if ! [ -e "$dir/made" ]; then # the first boot
    rm -rf etc/cloud/cloud-init.disabled var/lib/cloud opt/boxer etc/boxer var/lib/boxer var/task var/log/journal
    rm -rf etc/systemd/system etc/systemd/system-generators etc/fstab
    rm -f usr/sbin/dhclient etc/resolv.conf usr/bin/unzip usr/bin/bsdtar # as Debian's images are
    echo 'nameserver 127.0.0.1' >etc/resolv.conf # refuses at once
    mkdir -p etc/systemd/system/cloud-init.target.wants etc/systemd/system-generators etc/systemd/system.conf.d
    : >etc/fstab
    echo 0123456789abcdef0123456789abcdef >etc/machine-id
    for unit in cloud-init-local cloud-init cloud-config cloud-final; do
        ln -s /lib/systemd/system/$unit.service etc/systemd/system/cloud-init.target.wants/
    done
    for path in lib/systemd/system-generators/*; do
        [ "${path##*/}" = cloud-init-generator ] || ln -s /dev/null "etc/systemd/system-generators/${path##*/}"
    done
    # What the test needs nothing of, and what is slow.
    for unit in systemd-logind.service dbus.service dbus.socket getty.target systemd-udevd.service systemd-udev-trigger.service \
        systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-sysusers.service systemd-firstboot.service \
        systemd-random-seed.service systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-user-sessions.service \
        systemd-binfmt.service systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-modules-load.service systemd-sysctl.service systemd-journal-flush.service \
        systemd-ask-password-wall.path systemd-ask-password-console.path modprobe@.service dev-hugepages.mount dev-mqueue.mount \
        sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount; do
        ln -s /dev/null etc/systemd/system/$unit
    done
    printf '[Manager]\nDefaultTimeoutStopSec=15\n' >etc/systemd/system.conf.d/test.conf
    # The modules that have to do with user data; the rest would set up a machine that is none.
    cat >etc/cloud/cloud.cfg.d/99_test.cfg <<'END'
datasource_list: [Ec2]
network: {config: disabled}
cloud_init_modules: [bootcmd, write-files, set_hostname]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-per-once, scripts-per-boot, scripts-per-instance, scripts-user, final-message]
END
    : >"$dir/made"
fi

pivot_root . .old
cd /
umount -l /.old
exec setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog \
    env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=journal </dev/null >/dev/console 2>&1
