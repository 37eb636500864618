package e2e

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

// testTerm: Fluent Bit is asked to end while records come in. What it does not bring into the bucket any more, it
// brings there when it runs again.
func testTerm(t *testing.T) {
	t.Run("with the store in reach", func(t *testing.T) {
		t.Parallel()
		l := newLog(t, gatewayHTTP.open(t))
		a := newAggregator(t, []fluentbit.Section{l.section()})
		a.run(t)
		p := produce(t, a.forward, "t", 3, 0)
		p.waitAcked(t, 1000)
		a.stop(t)
		all := p.stop()
		a.run(t)
		all = append(all, produce(t, a.forward, "u", 1, 4).complete(t)...)
		a.stop(t)
		l.settle(t, a, all)
	})
	t.Run("with the store out of reach", func(t *testing.T) {
		t.Parallel()
		server := servers.Versitygw(t)
		l := newLog(t, server)
		a := newAggregator(t, []fluentbit.Section{l.section()})
		a.run(t)
		server.Stop()
		p := produce(t, a.forward, "t", 3, 0)
		p.waitAcked(t, 1000)
		a.stop(t)
		all := p.stop()
		a.run(t) // which it does without the store, since it knows the chain
		all = append(all, produce(t, a.forward, "u", 1, 4).complete(t)...)
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
		a.stop(t)
		l.settle(t, a, all)
	})
}

// settle starts Fluent Bit until all that was acknowledged is in the bucket, ends it, and checks the log.
func (l *auditLog) settle(t *testing.T, a *aggregator, all []sent) *contents {
	t.Helper()
	acked := 0
	for _, s := range all {
		if !s.maybe {
			acked++
		}
	}
	a.run(t)
	l.waitFor(t, acked)
	a.stop(t)
	c := l.load(t)
	c.checkRecords(t, all)
	c.checkCounts(t)
	if lost := c.events(chain.EventJournalLost); len(lost) > 0 {
		t.Errorf("the chain says %d times that a journal was lost", len(lost))
	}
	l.verify(t)
	return c
}

// testKill: Fluent Bit is killed while records come in, again and again.
func testKill(t *testing.T) {
	for workers, s := range map[string]*store{"1": gatewayHTTP, "4": minioTLS} {
		t.Run("with workers "+workers, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, s.open(t))
			a := newAggregator(t, []fluentbit.Section{l.section().With("workers", workers)})
			var all []sent
			for _, round := range []string{"k", "l", "m"} {
				a.run(t)
				p := produce(t, a.forward, round, 3, 0)
				p.waitAcked(t, 1000)
				a.process.Kill()
				all = append(all, p.stop()...)
			}
			l.settle(t, a, all)
		})
	}
}

// testRestart: one chain over the lives of several processes, with heartbeats while nothing comes.
func testRestart(t *testing.T) {
	t.Parallel()
	l := newLog(t, minioTLS.open(t))
	a := newAggregator(t, []fluentbit.Section{l.section().With("heartbeat_interval", "2s")})
	var all []sent
	for _, life := range []string{"a", "b", "c"} {
		a.run(t)
		all = append(all, produce(t, a.forward, life, 1, 4).complete(t)...)
		if life == "b" {
			eventually(t, "there is a heartbeat", func() error {
				metrics, err := a.process.Metrics(t.Context())
				if err == nil && sum(metrics, "fluentbit_auditchain_heartbeats_total") < 1 {
					err = errNotYet
				}
				return err
			})
		}
		a.stop(t)
	}
	c := l.settle(t, a, all)
	kinds, writers := make(map[chain.Kind]int), make(map[string]bool)
	for _, m := range c.manifests {
		kinds[m.Kind]++
		writers[m.Writer.Instance] = true
	}
	if kinds[chain.KindGenesis] != 1 || kinds[chain.KindSegment] < 3 || kinds[chain.KindHeartbeat] < 1 || len(writers) < 3 {
		t.Errorf("the manifests are %v, of %d writers", kinds, len(writers))
	}
}

// testLostState: the disk of the aggregator is gone, the chain in the bucket is not.
func testLostState(t *testing.T) {
	t.Parallel()
	l := newLog(t, gatewayTLS.open(t))
	a := newAggregator(t, []fluentbit.Section{l.section()})
	a.run(t)
	all := produce(t, a.forward, "a", 1, 4).complete(t)
	l.waitFor(t, len(all))
	a.stop(t)
	if err := os.RemoveAll(l.storeDir); err != nil {
		t.Fatal(err)
	}

	refusing := newAggregator(t, []fluentbit.Section{l.section().With("on_lost_journal", "refuse")})
	refusing.refuses(t, refusal{want: "chain audit.example.com/e2e stands at manifest … in s3://…, but the store directory has no state of the chain, and on_lost_journal is refuse: restore store_dir, or set on_lost_journal to resume"})

	a.run(t)
	all = append(all, produce(t, a.forward, "b", 1, 4).complete(t)...)
	l.waitFor(t, len(all)+1)
	a.stop(t)
	c := l.load(t)
	c.checkRecords(t, all)
	l.verify(t, query.JournalLost)
	lost := c.events(chain.EventJournalLost)
	if len(lost) != 1 || lost[0].Seq != 100 {
		t.Fatalf("the chain says %d times that a journal was lost", len(lost))
	}
	var detail struct {
		Reason       string `json:"reason"`
		LastManifest uint64 `json:"last_manifest"`
	}
	if err := json.Unmarshal(lost[0].Detail, &detail); err != nil || detail.Reason == "" || detail.LastManifest == 0 {
		t.Errorf("%s: %v", lost[0].Detail, err)
	}
}
