#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts the distribution's ZooKeeper as server number $1 of the ensemble.
set -eu
mkdir -p /tmp/zookeeper
echo "$1" >/tmp/zookeeper/myid
jars=/usr/share/java
exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$jars/zookeeper.jar:$jars/slf4j-simple.jar" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain /var/task/zoo.cfg
