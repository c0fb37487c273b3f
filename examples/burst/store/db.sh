#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# MariaDB from nothing. Nobody but the nodes of this network reaches it, so it asks
# for no password; what is written need not survive this node.
mkdir -p /tmp/db
exec mariadbd --no-defaults --datadir=/tmp/db --socket=/tmp/db/socket --pid-file=/tmp/db/pid --port=3306 \
    --skip-grant-tables --skip-name-resolve --init-file=/var/task/init.sql --max-connections=200 \
    --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=32M --performance-schema=off
