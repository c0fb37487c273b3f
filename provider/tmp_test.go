package provider
import ("testing";"time";"sync";"fmt")
func TestTmp(t *testing.T){
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop + herd(20, 5))
	w.timed(time.Minute, "apply", "-auto-approve")
	w.timed(time.Minute, "plan", "-refresh=false")
	w.timed(time.Minute, "plan")
	w.timed(time.Minute, "plan")
	p := newLocalPlatform(c.dir, nil)
	for _, par := range []int{1,10} {
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 100 {
		f := func(){ if _, err := p.VM(t.Context(), "shop", fmt.Sprintf("machine-%d", i%10)); err != nil { t.Error(err) } }
		if par == 1 { f() } else { wg.Go(f) }
	}
	wg.Wait()
	t.Log(par, "VM x100", time.Since(start))
	start = time.Now()
	for i := range 100 {
		f := func(){ if _, err := p.RunningReplicas(t.Context(), "shop", fmt.Sprintf("function-%d", i%2)); err != nil { t.Error(err) } }
		if par == 1 { f() } else { wg.Go(f) }
	}
	wg.Wait()
	t.Log(par, "Fn x100", time.Since(start))
	}
	w.destroy()
}
