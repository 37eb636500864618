package e2e

import (
	"testing"

	"github.com/auditchain/auditchain/test/fluentbit"
)

// testWorkers: chunks come at the same time, and are taken one by one on the engine's thread, or by several threads.
func testWorkers(t *testing.T) {
	for workers, s := range map[string]*store{"0": gatewayHTTP, "1": minioHTTP, "4": gatewayTLS} {
		t.Run(workers, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, s.open(t))
			a := newAggregator(t, []fluentbit.Section{l.section().With("workers", workers).With("total_file_size", "1M")})
			a.run(t)
			all := produce(t, a.forward, "w", 4, 120).complete(t)
			l.waitFor(t, len(all))
			c := l.load(t)
			c.checkRecords(t, all)
			c.checkCounts(t)
			a.checkMetrics(t, "auditchain.0", c)
			l.verify(t)
			a.stop(t)
		})
	}
}

// testTwoChains: two outputs share a store_dir, a bucket and records.
func testTwoChains(t *testing.T) {
	t.Parallel()
	everything := newLog(t, gatewayHTTP.open(t))
	some := everything.another("audit.example.com/some")
	a := newAggregator(t, []fluentbit.Section{
		everything.section().With("alias", "everything"),
		some.section().With("alias", "some").With("match", "forward.b").With("workers", "2"),
	})
	a.run(t)
	pa, pb := produce(t, a.forward, "a", 2, 20), produce(t, a.forward, "b", 2, 20)
	recordsA, recordsB := pa.complete(t), pb.complete(t)
	for l, want := range map[*auditLog][]sent{everything: append(recordsA, recordsB...), some: recordsB} {
		l.waitFor(t, len(want))
		c := l.load(t)
		c.checkRecords(t, want)
		a.checkMetrics(t, map[*auditLog]string{everything: "everything", some: "some"}[l], c)
		l.verify(t)
	}
	a.stop(t)
}

// testHotReload: SIGHUP ends all outputs and opens them anew in the same process, with the configuration as it is then.
//
// Without workers: Fluent Bit 5.1.1 starts the workers of a Go output twice (flb_proxy_output_cb_init and
// flb_output_init_all) and never ends the first ones. They look at the instance every 1.5 s, and crash Fluent Bit when a
// reload has freed it.
func testHotReload(t *testing.T) {
	t.Parallel()
	l := newLog(t, minioHTTP.open(t))
	a := newAggregator(t, []fluentbit.Section{l.section().With("workers", "0")})
	a.HotReload = true
	a.run(t)
	p := produce(t, a.forward, "r", 2, 0)
	p.waitAcked(t, 500)
	a.reload(t)
	p.waitAcked(t, 1000)
	a.Outputs[0] = a.Outputs[0].With("upload_timeout", "2s")
	a.reload(t)
	p.waitAcked(t, 1500)
	all := p.stop()
	a.stop(t)
	c := l.load(t)
	c.checkRecords(t, all)
	l.verify(t)
	if n := len(c.events("journal_lost")); n > 0 {
		t.Errorf("the chain says %d times that a journal was lost", n)
	}
	writers := make(map[string]bool)
	for _, m := range c.manifests {
		writers[m.Writer.Instance] = true
	}
	if len(writers) < 3 {
		t.Errorf("%d instances have written", len(writers))
	}
}
