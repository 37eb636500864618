package gpu

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// crowd is clients that call at a steady rate, whether the server is there or not, and keep count of what they got.
type crowd struct {
	name   string
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu       sync.Mutex
	answered []answered
	whole    int // answers that came whole
	more     chan struct{}
}

const (
	crowdClients = 20
	crowdPause   = 100 * time.Millisecond // between a client's calls
)

// newCrowd begins to call; the name makes its prompts its own.
func newCrowd(t *testing.T, name string, url func() string) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{name: name, cancel: cancel, more: make(chan struct{}, 1)}
	for n := range crowdClients {
		c.group.Go(func() { c.client(ctx, n, url) })
	}
	t.Cleanup(func() { c.quiet() })
	return c
}

func (c *crowd) client(ctx context.Context, number int, url func() string) {
	time.Sleep(time.Duration(number) * crowdPause / crowdClients) // not all at the same time
	tick := time.NewTicker(crowdPause)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%6 == 3 {
			continue // an error has no id, by which the record of a process that died could be found
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		client := NewClient(url(), 1)
		call, want := anyCall(fmt.Sprintf("%s%d", c.name, number), n)
		// The last call is ended too: who is quiet has left no request behind.
		e := client.Do(context.WithoutCancel(ctx), call, nil)
		client.Close()
		c.mu.Lock()
		c.answered = append(c.answered, answered{e, want})
		if e.Err == nil {
			c.whole++
		}
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
	}
}

// await waits for so many more answers that came whole.
func (c *crowd) await(t *testing.T, more int) {
	t.Helper()
	timeout := time.After(patience)
	for goal := c.count() + more; c.count() < goal; {
		select {
		case <-c.more:
		case <-timeout:
			t.Fatalf("the clients got %d answers in %s, not %d", c.count()-goal+more, patience, more)
		}
	}
}

func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole
}

// hold makes calls whose answers begin and do not end, and returns the request_ids of their records.
func hold(t *testing.T, url string, calls int) []string {
	t.Helper()
	begun := make(chan string, calls)
	for n := range calls {
		call := NewCall(chatPath, chatBody(streamed(map[string]any{"user": fmt.Sprint("holding ", n), "stub": map[string]any{"pace": 600}})))
		go func() {
			client := NewClient(url, 1)
			defer client.Close()
			said := false
			client.Do(t.Context(), call, func(soFar []byte) {
				if id := responseID(soFar); id != "" && !said {
					said = true
					begun <- uuidOf(id)
				}
			})
		}()
	}
	var ids []string
	timeout := time.After(patience)
	for range calls {
		select {
		case id := <-begun:
			ids = append(ids, id)
		case <-timeout:
			t.Fatal("the answers do not begin")
		}
	}
	return ids
}

// quiet ends the calls and returns them all.
func (c *crowd) quiet() []answered {
	c.cancel()
	c.group.Wait()
	return c.answered
}
