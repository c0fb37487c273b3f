<?php
// SPDX-License-Identifier: Apache-2.0
// One order: counted in the cache, written to the database. Then the database has
// it wait for 0.2 s, as for a slow partner's answer: that, and not the CPU, is what a
// replica's four workers spend their time with, so that replicas help on one machine.
$cache = new Redis();
$cache->pconnect('cache', 6379, 5);
$count = $cache->incr('orders');
$db = new PDO('mysql:host=db;dbname=shop', 'shop', '', [PDO::ATTR_PERSISTENT => true, PDO::ATTR_TIMEOUT => 5]);
$db->prepare('INSERT INTO orders (replica) VALUES (?)')->execute([gethostname()]);
$db->query('SELECT SLEEP(0.2)')->fetchAll();
header('Content-Type: text/plain');
echo "order $count, by ", gethostname(), "\n";
