#!/bin/sh
# In the guest of scripts/check-sctp: the tests of links over SCTP, each between two network namespaces. $SEAPROX is where the
# executable of the tests looks for the binary.
set -eu
. ./settings
mkdir -p "$(dirname "$SEAPROX")"
ln -sf /guest/seaprox "$SEAPROX"
# Emulated paths are devices of TUN, which is made with its module.
modprobe -a sctp tun
# A test listens on a name of two addresses.
printf '10.77.1.2 both\n10.77.2.2 both\n' >>/etc/hosts
chmod +x tests seaprox
uname -srm
# The tests run one at a time: the guest may be many times slower than the machine.
code=0
# shellcheck disable=SC2086 # a list of words
./tests $ARGUMENTS >output 2>&1 || code=$?
grep -v '^tcp: \|^host ' output
exit $code
