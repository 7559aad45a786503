# Before removing; $1 is 0 when it goes for good and 1 on an upgrade.
if [ "$1" -eq 0 ]; then
	if [ -d /run/systemd/system ]; then
		systemctl disable --now holdfast-collector.service || true
	else
		systemctl disable holdfast-collector.service || true
	fi
fi
