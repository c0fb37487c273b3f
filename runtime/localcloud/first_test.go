// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"testing"
)

func TestFirst(t *testing.T) {
	s := testStore(t)
	c := testNetwork(t, s, "shop")
	hosts, err := c.Hosts(testContext(t))
	t.Logf("%+v %v", hosts, err)
	t.Log(shell(t, c, "one", "id; cat /proc/mounts; ls -la / /etc/boxer /dev /var /home /root; ip a; ip r; env; ps aux; ulimit -a; hostname; cat /etc/hosts; touch /usr/x; touch /var/lib/x && echo yes; ls -la /var/lib"))
}
