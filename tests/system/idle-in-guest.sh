#!/bin/sh
# In the guest of scripts/check-idle: a relay with many idle connections. A guest may raise the limit of descriptors.
set -eu
. ./settings
chmod +x idle seaprox
ulimit -n 300000
sysctl -qw net.ipv4.ip_local_port_range='10000 65535' net.core.somaxconn=4096 || true
uname -srm
# The ports that can be had of one address for one target are fewer than the connections, so there are several targets.
./idle serve 7001 7002 7003 7004 &
./seaprox static -q --max-connections 200000 -l 8001 --to 127.0.0.1:7001 -l 8002 --to 127.0.0.1:7002 \
    -l 8003 --to 127.0.0.1:7003 -l 8004 --to 127.0.0.1:7004 &
relay=$!
for _ in $(seq 100); do
    grep -q ':1F44 ' /proc/net/tcp && break
    sleep 0.2
done
./idle hold $relay "$COUNTS" 8001 8002 8003 8004
