# In a guest of scripts/guest: installs the Debian package, and starts, reloads, watches and removes the service under systemd.
set -eu
fail() { echo "FAILED: $*"; journalctl -u seaprox -n 40 --no-pager -o short-monotonic; exit 1; }
step() { echo "== $*"; }
# within SECONDS COMMAND...: runs the command until it succeeds.
within() {
    left=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "not in time: $*"
        sleep 0.1
    done
}
listens() { ss -Hltn | grep -q "127.0.0.1:$1 "; }
show() { systemctl show --value -p "$1" seaprox.service; }

step "the package is installed, and nothing starts"
dpkg -i seaprox_*.deb >/dev/null
[ "$(systemctl is-enabled seaprox.service || true)" = disabled ] || fail "the unit is enabled"
[ "$(systemctl is-active seaprox.service || true)" = inactive ] || fail "the unit is active"
[ "$(stat -c %U:%a /var/lib/seaprox)" = seaprox:700 ] || fail "the directory of the keys"
seaprox check /etc/seaprox/seaprox.toml || true

step "the service starts as its user, and is ready when it listens"
cat >/etc/seaprox/seaprox.toml <<'TOML'
[[listener]]
name = "one"
front = "socks"
listen = "127.0.0.1:1080"
TOML
systemctl enable --now seaprox.service
listens 1080 || fail "ready, and does not listen"
[ "$(ps -o user= -p "$(show MainPID)")" = seaprox ] || fail "another user"
show StatusText | grep -q "Listening on 1 address" || fail "status: $(show StatusText)"
pid=$(show MainPID)

step "a reload applies a changed file in the same process"
sed -i 's/"127.0.0.1:1080"/["127.0.0.1:1080", "127.0.0.1:80"]/' /etc/seaprox/seaprox.toml
systemctl reload seaprox.service
within 10 listens 80
listens 1080 || fail "the first address is gone"
[ "$(show MainPID)" = "$pid" ] || fail "another process"
[ "$(show ActiveState)" = active ] || fail "state: $(show ActiveState)"

step "a file with errors is refused, and the service goes on"
cp /etc/seaprox/seaprox.toml /root/right.toml
echo 'front = "sox"' >>/etc/seaprox/seaprox.toml
! systemctl reload seaprox.service 2>/dev/null || fail "the reload has succeeded"
[ "$(show MainPID)" = "$pid" ] && listens 80 && listens 1080 || fail "the service has changed"
cp /root/right.toml /etc/seaprox/seaprox.toml
systemctl reload seaprox.service

step "the journal has the levels of the lines and no second time"
journalctl -u seaprox.service -o cat --no-pager | grep -q '^seaprox::process ' || fail "no line of seaprox"
journalctl --sync
journalctl -u seaprox.service -p err --no-pager -q -o cat | grep -q 'seaprox.toml:' || fail "the error of the check has no level"
! journalctl -u seaprox.service -o cat --no-pager | grep -q '^20[0-9][0-9]-.*Z \(INFO\|WARN\|ERROR\)' || fail "lines with a time"

step "a killed process is started again, and a process that hangs, too"
kill -9 "$pid"
within 20 sh -c "[ \"\$(systemctl show --value -p MainPID seaprox.service)\" -gt 0 ] && ss -Hltn | grep -q 127.0.0.1:1080"
[ "$(show MainPID)" != "$pid" ] || fail "the same process"
mkdir -p /run/systemd/system/seaprox.service.d
printf '[Service]\nWatchdogSec=2s\n' >/run/systemd/system/seaprox.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart seaprox.service
pid=$(show MainPID)
sleep 5
[ "$(show MainPID)" = "$pid" ] || fail "the watchdog has ended a process that answers"
kill -STOP "$pid"
within 30 sh -c "[ \"\$(systemctl show --value -p NRestarts seaprox.service)\" -ge 1 ] && ss -Hltn | grep -q 127.0.0.1:1080"

step "a stop drains, and is clean"
systemctl stop seaprox.service
[ "$(show Result)" = success ] || fail "result: $(show Result)"

step "a file with errors ends the start at once and for good"
echo 'front = "sox"' >>/etc/seaprox/seaprox.toml
! systemctl start seaprox.service 2>/dev/null || fail "started"
[ "$(show ExecMainStatus)" = 78 ] || fail "exit code $(show ExecMainStatus)"
[ "$(show ActiveState)" = failed ] || fail "state $(show ActiveState)"
systemctl reset-failed seaprox.service

step "sockets of systemd are taken by their name, and outlive the service"
printf '[[listener]]\nfront = "socks"\nlisten = "fd:socks"\n' >/etc/seaprox/seaprox.toml
systemctl start seaprox.socket
listens 1080 || fail "systemd does not listen"
[ "$(show ActiveState)" = inactive ] || fail "the service runs before a client came"
bash -c 'exec 3<>/dev/tcp/127.0.0.1/1080; printf "\005\001\000" >&3; head -c 2 <&3 | od -An -tx1' | grep -q '05 00' ||
    fail "no answer on the socket of systemd"
[ "$(show ActiveState)" = active ] || fail "the client has not started the service"
systemctl restart seaprox.service
bash -c 'exec 3<>/dev/tcp/127.0.0.1/1080; printf "\005\001\000" >&3; head -c 2 <&3 | od -An -tx1' | grep -q '05 00' ||
    fail "no answer after the restart"
systemctl stop seaprox.socket seaprox.service

step "the exposure of the installed unit"
systemd-analyze security --threshold=20 seaprox.service | tail -1

step "an upgrade keeps the file, and a purge leaves nothing"
dpkg -i --force-confold seaprox_*.deb >/dev/null
grep -q 'fd:socks' /etc/seaprox/seaprox.toml || fail "the file was replaced"
systemctl start seaprox.socket seaprox.service
dpkg -P seaprox >/dev/null 2>&1
[ "$(systemctl is-active seaprox.service || true)" != active ] || fail "the service runs without its package"
for path in /usr/bin/seaprox /etc/seaprox /var/lib/seaprox /lib/systemd/system/seaprox.service; do
    [ ! -e "$path" ] || fail "$path is left"
done
echo "all steps have passed"
