# After installing; $1 is 1 the first time and 2 on an upgrade.
systemd-sysusers holdfast-collector.conf || true
systemd-tmpfiles --create holdfast-collector.conf || true
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	if [ "$1" -eq 1 ]; then
		systemctl enable --now holdfast-collector.service || true
	fi
elif [ "$1" -eq 1 ]; then
	systemctl enable holdfast-collector.service || true
fi
