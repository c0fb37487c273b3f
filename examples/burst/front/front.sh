#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
python3 /var/task/members.py logic &
exec haproxy -db -f /var/task/haproxy.cfg
