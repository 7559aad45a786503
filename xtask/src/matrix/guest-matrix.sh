# Runs the agent three times under the same small load and notes how its probes do: as
# root, as its unit would, and as root without the programs that need types.
echo "+cpu +io +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
slice=/sys/fs/cgroup/system.slice
work=$slice/work.service
mkdir -p $work/ $slice/holdfast-agent.service
echo "+cpu +io +memory +pids" >$slice/cgroup.subtree_control
echo 24M >$work/memory.max

disk=no
if [ -e /disk.img ] && losetup /dev/loop0 /disk.img && mkdir -p /disk && mount -t ext4 /dev/loop0 /disk; then
    disk=yes
fi
echo "disk: $disk" >/out/notes
# On the disk, so that the agent can prove what watches it.
state=/var/lib/holdfast
[ $disk = no ] || state=/disk/state

# Once more and more, until the file that names it is gone: every probe has something
# to see, whenever it looks.
load() {
    echo 0 >$work/cgroup.procs
    while [ -e /run/load ]; do
        [ $disk = no ] || dd if=/dev/zero of=/disk/file bs=64k count=8 conv=fsync 2>/dev/null
        [ $disk = no ] || { echo 3 >/proc/sys/vm/drop_caches; cat /disk/file >/dev/null; }
        # Nobody listens there; somebody does here.
        nc -w 1 127.0.0.1 9 </dev/null 2>/dev/null
        wget -q -O /dev/null http://127.0.0.1:7404/healthz 2>/dev/null
        sh -c 'exit 3'
        sh -c 'kill -SEGV $$'
        # More than the unit may have.
        dd if=/dev/zero of=/dev/null bs=48M count=1 2>/dev/null
        dd if=/dev/zero bs=4k count=64 2>/dev/null | cat >/dev/null
        sleep 0.2
    done
}

as() {
    case $1 in
    root | classic) shift; exec "$@" ;;
    unit) shift; exec /usr/bin/setpriv --reuid 990 --regid 990 --clear-groups --no-new-privs \
        --inh-caps=-all,CAPS --ambient-caps=-all,CAPS --bounding-set=-all,CAPS "$@" ;;
    esac
}

for who in root unit classic; do
    echo "the agent as $who"
    rm -rf /run/holdfast $state
    mkdir -p /run/holdfast $state
    [ $who != unit ] || chown 990:990 /run/holdfast $state
    (
        echo 0 >$slice/holdfast-agent.service/cgroup.procs
        as $who holdfast-agent run --config /etc/$who.toml --socket /run/holdfast/agent.sock \
            --state-dir $state --collector "" --host-name matrix
    ) >/out/$who.log 2>&1 &
    agent=$!
    tries=0
    until holdfast --socket /run/holdfast/agent.sock local status >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] && kill -0 $agent 2>/dev/null || break
        sleep 1
    done
    : >/run/load
    load &
    load=$!
    # Only root may measure.
    measure="--measure 10s"
    [ $who != unit ] || measure=""
    sleep 5
    holdfast --socket /run/holdfast/agent.sock --timeout 60s --json local probes $measure \
        >/out/$who.probes.json 2>/out/$who.probes.err
    if [ $who != classic ] && holdfast local attest --help >/dev/null 2>&1; then
        echo "attesting as $who"
        holdfast --socket /run/holdfast/agent.sock --timeout 120s --json local attest \
            >/out/$who.attest.json 2>/out/$who.attest.err
    fi
    rm /run/load
    wait $load
    kill $agent
    wait $agent
    echo "the agent as $who ended with $?"
done
