# After removing; $1 is 0 when it went for good and 1 on an upgrade. State in
# /var/lib/holdfast stays: an .rpm knows no purge.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	if [ "$1" -ge 1 ]; then
		systemctl try-restart holdfast-agent.service || true
	fi
fi
