# What the kernel says of itself: its types and the records of its tracepoints.
mkdir -p /out/sys/kernel/btf
cp /sys/kernel/btf/vmlinux /out/sys/kernel/btf/vmlinux
uname -r >/out/release
cd /
for group in GROUPS; do
    for format in sys/kernel/tracing/events/$group/*/format; do
        # Their sizes read as 0, so they are read to their ends instead of copied.
        [ -r "$format" ] || continue
        mkdir -p "/out/${format%/format}"
        cat "$format" >"/out/$format"
    done
done
echo "described"
