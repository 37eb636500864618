package storagetest_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

var errLost = errors.New("the connection broke")

// newClient is a way to a bucket that holds "there", of "0123456789", in two versions, and "there2".
func newClient(t *testing.T) (*storagetest.Memory, *storagetest.Faults, *storagetest.Process, *storagetest.Client) {
	t.Helper()
	memory, faults := storagetest.NewMemory(), new(storagetest.Faults)
	for _, key := range []string{"there", "there2"} {
		if err := create(t.Context(), memory, key, "0123456789"); err != nil {
			t.Fatal(err)
		}
	}
	if err := memory.Overwrite(t.Context(), "there", []byte("abcdefghij")); err != nil {
		t.Fatal(err)
	}
	process := storagetest.NewProcess(faults)
	return memory, faults, process, storagetest.NewClient(process, memory)
}

func create(ctx context.Context, bucket storage.Bucket, key, body string) error {
	_, err := bucket.Create(ctx, key, strings.NewReader(body), storagetest.Options([]byte(body)))
	return err
}

// open reads all of an object but its first two bytes.
func open(ctx context.Context, bucket storage.Bucket, key string) (string, error) {
	r, _, err := bucket.Open(ctx, key, "", 2, -1)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(r)
	if _, again := r.Read(make([]byte, 1)); err != nil && again != err {
		err = errors.New("what was broken can be read on")
	}
	return string(body), errors.Join(err, r.Close())
}

func listed(ctx context.Context, bucket storage.Bucket) (keys string, err error) {
	for info, err := range bucket.List(ctx, "th", "") {
		if err != nil {
			return keys, err
		}
		keys += info.Key + "/" + info.Version + " "
	}
	return keys, nil
}

// operations are all operations of a bucket. Each tells what it was told.
var operations = []struct {
	op   storagetest.Op // but N
	run  func(context.Context, storage.Bucket) (string, error)
	want string
}{
	{storagetest.Op{Kind: storagetest.OpCreate, Path: "new", Bytes: 3}, func(ctx context.Context, b storage.Bucket) (string, error) {
		return "", create(ctx, b, "new", "abc")
	}, ""},
	{storagetest.Op{Kind: storagetest.OpOpen, Path: "there"}, func(ctx context.Context, b storage.Bucket) (string, error) { return open(ctx, b, "there") }, "cdefghij"},
	{storagetest.Op{Kind: storagetest.OpStat, Path: "there"}, func(ctx context.Context, b storage.Bucket) (string, error) {
		info, err := b.Stat(ctx, "there", "")
		return info.Version, err
	}, "v2"},
	{storagetest.Op{Kind: storagetest.OpVersions, Path: "there"}, func(ctx context.Context, b storage.Bucket) (string, error) {
		found, err := b.Versions(ctx, "there")
		told := ""
		for _, info := range found {
			told += info.Version
		}
		return told, err
	}, "v0v2"},
	{storagetest.Op{Kind: storagetest.OpList, Path: "th"}, listed, "there/v0 there/v2 there2/v1 "},
	{storagetest.Op{Kind: storagetest.OpCheck}, func(ctx context.Context, b storage.Bucket) (string, error) { return "", b.Check(ctx) }, ""},
}

func TestClient(t *testing.T) {
	for _, c := range operations {
		for _, fault := range []struct {
			name string
			storagetest.Fault
			want    error
			created bool
		}{
			{"none", storagetest.Fault{}, nil, true},
			{"Fail", storagetest.Fail(errLost), errLost, false},
			{"FailDone", storagetest.FailDone(errLost), errLost, true},
			{"Short", storagetest.Short(1, errLost), errLost, false},
		} {
			t.Run(c.op.Kind+" "+fault.name, func(t *testing.T) {
				memory, faults, _, client := newClient(t)
				var ops []storagetest.Op
				faults.Inject(func(op storagetest.Op) storagetest.Fault {
					if ops = append(ops, op); op.N == 0 {
						return fault.Fault
					}
					return storagetest.Fault{}
				})
				want := c.want
				switch list := c.op.Kind == storagetest.OpList; {
				case list && fault.name == "Short":
					want = "there/v0 "
				case fault.want != nil && !(list && fault.Done):
					want = ""
				}
				told, err := c.run(t.Context(), client)
				if told != want || err != fault.want {
					t.Errorf("%q, %v, want %q, %v", told, err, want, fault.want)
				}
				if len(ops) == 0 || ops[0] != c.op || faults.Count() != len(ops) {
					t.Errorf("steps %+v, want %+v; %d were counted", ops, c.op, faults.Count())
				}
				if _, known := client.ClockSkew(); known != (err == nil || told != "") {
					t.Errorf("after error %v the clock's skew is known: %v", err, known)
				}
				found, err := memory.Versions(t.Context(), "new")
				if created := c.op.Kind == storagetest.OpCreate && fault.created; err != nil || (len(found) == 1) != created {
					t.Errorf("created %v, %v", found, err)
				}
			})
		}
	}
}

func TestClientErrors(t *testing.T) {
	ctx := t.Context()
	_, faults, _, client := newClient(t)
	if _, err := client.Stat(ctx, "none", ""); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
	if _, err := open(ctx, client, "none"); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
	if err := create(ctx, client, "there", "x"); !errors.Is(err, storage.ErrExists) {
		t.Error(err)
	}
	faults.Inject(func(storagetest.Op) storagetest.Fault { return storagetest.FailDone(errLost) })
	if err := create(ctx, client, "there", "x"); err != errLost {
		t.Error(err)
	}
	faults.Inject(func(storagetest.Op) storagetest.Fault {
		return storagetest.Corrupt(func(p []byte) { p[0] ^= 1 })
	})
	if err := create(ctx, client, "changed", "x"); !errors.Is(err, storage.ErrMismatch) {
		t.Errorf("a body that was changed on its way: %v", err)
	}
}

// TestBody: a body breaks, or is changed, at any of its reads.
func TestBody(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault storagetest.Fault
		at    int // of the reads of three bytes
		want  string
		err   error
	}{
		{"none", storagetest.Fault{}, 0, "cdefghij", nil},
		{"fails at once", storagetest.Fail(errLost), 0, "", errLost},
		{"fails in the middle", storagetest.Fail(errLost), 1, "cde", errLost},
		{"fails at its end", storagetest.Fail(errLost), 3, "cdefghij", errLost},
		{"breaks in the middle", storagetest.Short(2, errLost), 1, "cdefg", errLost},
		{"is lost on its way", storagetest.FailDone(errLost), 1, "cde", errLost},
		{"is changed", storagetest.Corrupt(func(p []byte) { copy(p, "X") }), 1, "cdeXghij", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, faults, _, client := newClient(t)
			r, _, err := client.Open(t.Context(), "there", "", 2, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			first := faults.Count()
			faults.Inject(func(op storagetest.Op) storagetest.Fault {
				if want := (storagetest.Op{N: op.N, Kind: storagetest.OpBody, Path: "there", Bytes: 3}); op != want {
					t.Errorf("step %+v", op)
				}
				if op.N == first+c.at {
					return c.fault
				}
				return storagetest.Fault{}
			})
			var got []byte
			for err == nil {
				b := make([]byte, 3)
				var n int
				n, err = r.Read(b)
				got = append(got, b[:n]...)
			}
			if err == io.EOF {
				err = nil
			}
			if string(got) != c.want || err != c.err {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := r.Read(make([]byte, 3)); c.err != nil && err != c.err {
				t.Errorf("then %v", err)
			}
		})
	}
}

// TestKilled: a process that is killed before a step, or while it reads what it wants to store, stores nothing.
func TestKilled(t *testing.T) {
	for _, c := range operations {
		t.Run(c.op.Kind, func(t *testing.T) {
			memory, faults, process, client := newClient(t)
			faults.Inject(func(storagetest.Op) storagetest.Fault {
				process.Kill()
				return storagetest.Fault{}
			})
			for range 2 {
				if told, err := c.run(t.Context(), client); told != "" || err != storagetest.ErrCrashed {
					t.Errorf("%q, %v", told, err)
				}
			}
			if faults.Count() != 1 {
				t.Errorf("%d steps were counted", faults.Count())
			}
			if found, err := memory.Versions(t.Context(), "new"); err != nil || len(found) != 0 {
				t.Errorf("created %v, %v", found, err)
			}
		})
	}
	_, faults, process, client := newClient(t)
	r, _, err := client.Open(t.Context(), "there", "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	faults.Inject(func(storagetest.Op) storagetest.Fault {
		process.Kill()
		return storagetest.Fault{}
	})
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != storagetest.ErrCrashed {
		t.Errorf("read %d, %v", n, err)
	}

	memory, _, process, client := newClient(t)
	if _, err := client.Create(t.Context(), "new", &killing{strings.NewReader("abc"), process}, storagetest.Options([]byte("abc"))); err != storagetest.ErrCrashed {
		t.Error(err)
	}
	if found, err := memory.Versions(t.Context(), "new"); err != nil || len(found) != 0 {
		t.Errorf("created %v, %v", found, err)
	}
}

// killing is a body that kills its process when it is read.
type killing struct {
	*strings.Reader
	process *storagetest.Process
}

func (k *killing) Read(p []byte) (int, error) {
	k.process.Kill()
	return k.Reader.Read(p)
}
