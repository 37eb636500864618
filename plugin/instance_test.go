package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/ingest"
)

// fakeLog fails as it is told to.
type fakeLog struct {
	err    error
	closed int
}

func (f *fakeLog) Append(_, _ []byte) error { return f.err }
func (f *fakeLog) Stats() ingest.Stats      { return ingest.Stats{} }
func (f *fakeLog) Close(ctx context.Context) error {
	f.closed++
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > closeTimeout {
		return errors.New("no deadline")
	}
	return f.err
}

func TestRefusalsAreLoggedNowAndThen(t *testing.T) {
	r := &recorder{level: levelInfo}
	l, _ := newTestLogger(r)
	clock := time.Now()
	l.now = func() time.Time { return clock }
	log := &fakeLog{}
	i := &instance{log: log, logger: l}
	full, forked := errors.New("full"), errors.New("forked")
	for _, step := range []struct {
		after time.Duration
		err   error
		want  string // "": nothing is logged
	}{
		{0, nil, ""},
		{0, full, "error"},
		{time.Second, full, ""},
		{time.Second, forked, "error"},
		{time.Second, forked, ""},
		{repeatAfter, forked, "error"},
		{time.Second, nil, "info"},
		{time.Second, nil, ""},
		{0, forked, "error"},
	} {
		clock = clock.Add(step.after)
		log.err, r.lines = step.err, nil
		if err := i.append(nil, nil); err != step.err {
			t.Errorf("append = %v, want %v", err, step.err)
		}
		got, _, _ := strings.Cut(strings.Join(r.lines, "|"), " ")
		if got != step.want {
			t.Errorf("%v after %v: logged %q, want %q", step.err, step.after, r.lines, step.want)
		}
	}
}

func TestTable(t *testing.T) {
	all := table{open: make(map[uintptr]*instance)}
	l, _ := newTestLogger(nil)
	a, b := &fakeLog{}, &fakeLog{}
	idA := all.add(&instance{log: a, logger: l})
	idB := all.add(&instance{log: b, logger: l})
	if idA == 0 || idB == 0 || idA == idB {
		t.Fatalf("numbers %d and %d", idA, idB)
	}
	if all.get(idA).log != a || all.get(idB).log != b {
		t.Fatal("get returns another instance")
	}
	for range 2 { // Fluent Bit may exit twice
		i := all.remove(idA)
		i.close()
	}
	if a.closed != 1 || b.closed != 0 {
		t.Errorf("closed %d and %d times, want 1 and 0", a.closed, b.closed)
	}
	for _, id := range []uintptr{0, idA, 99, ^uintptr(0)} {
		if err := all.get(id).log.Append(nil, nil); !errors.Is(err, ingest.ErrClosed) {
			t.Errorf("instance %d: Append = %v, want ErrClosed", id, err)
		}
	}
}

func TestOpenNamesWhatIsMissing(t *testing.T) {
	l, _ := newTestLogger(nil)
	_, err := open(func(string) string { return "" }, l)
	if err == nil {
		t.Fatal("opened without keys")
	}
	for _, key := range []string{"chain", "bucket", "signing_key", "retention"} {
		if !strings.Contains(err.Error(), key+": missing") {
			t.Errorf("%q does not name %s", err, key)
		}
	}
}
