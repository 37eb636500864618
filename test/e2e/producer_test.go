package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
)

// producer sends chunks to an aggregator from several connections, and remembers what was acknowledged.
type producer struct {
	name     string
	tag      string
	perChunk int

	mu     sync.Mutex
	chunks int // begun
	sent   []sent
	acked  int // records
	first  error

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// pace is the pause of a connection between two chunks, so that the size of a test does not depend on the machine.
const pace = 5 * time.Millisecond

// produce begins to send chunks, most of them at the most (0: until stop). A chunk that is not acknowledged is not sent
// again: its records may be in the chain or not. The producer connects again then.
func produce(t *testing.T, address, name string, connections, most int) *producer {
	ctx, cancel := context.WithCancel(t.Context())
	p := &producer{name: name, tag: "forward." + name, perChunk: 25, cancel: cancel}
	for range connections {
		p.done.Go(func() {
			for ctx.Err() == nil {
				if p.connection(ctx, t, address, most) {
					return
				}
				time.Sleep(pollInterval)
			}
		})
	}
	return p
}

// connection sends chunks until there are none to send any more, true, or the connection breaks.
func (p *producer) connection(ctx context.Context, t *testing.T, address string, most int) bool {
	f, err := fluentbit.Dial(ctx, address)
	if err != nil {
		return false
	}
	defer f.Close()
	for ctx.Err() == nil {
		n, ok := p.next(most)
		if !ok {
			return true
		}
		c, records := p.chunk(t, n)
		err := f.Send(ctx, c)
		p.mu.Lock()
		for i := range records {
			records[i].maybe = err != nil
		}
		p.sent = append(p.sent, records...)
		if err == nil {
			p.acked += len(records)
		} else if p.first == nil {
			p.first = err
		}
		p.mu.Unlock()
		if err != nil {
			return false
		}
		time.Sleep(pace)
	}
	return true
}

func (p *producer) next(most int) (n int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = p.chunks
	if most > 0 && n >= most {
		return 0, false
	}
	p.chunks++
	return n, true
}

// chunk makes chunk n.
func (p *producer) chunk(t *testing.T, n int) (fluentbit.Chunk, []sent) {
	c := fluentbit.Chunk{Tag: p.tag, Count: p.perChunk, Packed: n%2 == 0, ID: fmt.Sprint(p.name, n)}
	var records []sent
	for i := n * p.perChunk; i < (n+1)*p.perChunk; i++ {
		s := sent{id: recordID(p.name, i), tag: p.tag, time: time.Unix(1700000000, int64(i)).UTC()}
		record := auditRecord(s.id, i)
		s.record = text(t, record)
		var err error
		if c.Events, err = fluentbit.AppendV1(c.Events, fluentbit.Event{Time: s.time, Record: record}); err != nil {
			t.Error(err)
		}
		records = append(records, s)
	}
	return c, records
}

// waitAcked waits until at least so many records have been acknowledged.
func (p *producer) waitAcked(t *testing.T, records int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d records are acknowledged", records), func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.acked < records {
			return fmt.Errorf("%d are: %v", p.acked, p.first)
		}
		return nil
	})
}

// stop ends the sending.
func (p *producer) stop() []sent {
	p.cancel()
	return p.wait()
}

// wait waits until all that was to be sent is, and returns it.
func (p *producer) wait() []sent {
	p.done.Wait()
	p.cancel()
	return p.sent
}

// complete is wait where nothing may go wrong.
func (p *producer) complete(t *testing.T) []sent {
	t.Helper()
	all := p.wait()
	if p.first != nil {
		t.Fatal(p.first)
	}
	return all
}
