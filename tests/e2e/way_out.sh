#!/bin/sh
# Runs a command in this network namespace with a way out that leads nowhere: an address, a default route, a neighbour
# that takes everything and answers nothing. Whoever tries to reach anything is counted as a packet that went out; IPv6
# has no route, and what is tried there is counted as Ip6OutNoRoutes.
set -eu
ip link add out type veth peer name wire
for each in out wire; do echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done
ip address add 192.0.2.2/24 dev out
ip link set lo up
ip link set wire up
ip link set out up
ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev out nud permanent
ip route add default via 192.0.2.1
exec "$@"
