// Package e2e tests the plugin as it is shipped, build/out_auditchain.so, and the command that verifies what it wrote,
// against real S3 servers: inside the real Fluent Bit (TestFluentBit), and inside a stand-in for it that delivers chunks
// one by one and needs nothing but a C compiler (TestPlugin).
//
// The log is read back with an S3 client of the test's own, so that it is not the code under test that vouches for it.
package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// patience is how long a test waits for what must happen. It is far longer than anything takes, on a slow machine too.
const patience = 60 * time.Second

// pollInterval is the pause between questions where nothing says when the answer changes.
const pollInterval = 50 * time.Millisecond

// store is one kind of S3 server, which all tests share; each has buckets of its own there.
type store struct {
	name, program string
	tls           bool

	once   sync.Once
	server *servers.Server
	err    error
}

var (
	gatewayHTTP = &store{name: "versitygw", program: "versitygw"}
	gatewayTLS  = &store{name: "versitygw with TLS", program: "versitygw", tls: true}
	minioHTTP   = &store{name: "MinIO", program: "minio"}
	minioTLS    = &store{name: "MinIO with TLS", program: "minio", tls: true}
	stores      = []*store{gatewayHTTP, gatewayTLS, minioHTTP, minioTLS}
)

// storesDir holds the data of the stores.
var storesDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if storesDir, err = os.MkdirTemp("", "auditchain-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(storesDir)
		defer func() {
			for _, s := range stores {
				if s.server != nil {
					s.server.Kill()
				}
			}
		}()
		return m.Run()
	}())
}

// open returns the store's server, running.
func (s *store) open(t *testing.T) *servers.Server {
	t.Helper()
	servers.Tool(t, s.program)
	s.once.Do(func() {
		opts := []servers.Option{servers.WithDir(filepath.Join(storesDir, s.name))}
		if s.tls {
			opts = append(opts, servers.WithTLS())
		}
		s.server, s.err = servers.Start(s.program, opts...)
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.server
}

var buckets atomic.Int64

// newBucket makes a bucket with Object Lock.
func newBucket(t *testing.T, s *servers.Server) string {
	t.Helper()
	name := fmt.Sprintf("audit-%d", buckets.Add(1))
	s.MakeLockedBucket(t, name)
	return name
}

// TestFluentBit is what is promised of the plugin inside Fluent Bit.
func TestFluentBit(t *testing.T) {
	if _, err := fluentbit.Find(); err != nil {
		t.Skip(err)
	}
	host.Plugin(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"records of every input are in the chain once and whole", testInputs},
		{"any number of workers", testWorkers},
		{"two chains in one process", testTwoChains},
		{"what was acknowledged survives SIGTERM", testTerm},
		{"what was acknowledged survives kill -9", testKill},
		{"a restart continues the chain", testRestart},
		{"a hot reload keeps going", testHotReload},
		{"many hot reloads leave nothing behind", testManyReloads},
		{"SIGTERM during an upload that hangs", testTermWhileHanging},
		{"an output that cannot start does not harm the other", testSecondOutputRefused},
		{"lost local state is told in the chain", testLostState},
		{"hostile input is kept", testHostileInput},
		{"a configuration that cannot work stops Fluent Bit", testRefusedByFluentBit},
	} {
		t.Run(test.name, test.run)
	}
}

// TestPlugin is what is promised of the plugin in any host.
func TestPlugin(t *testing.T) {
	host.Plugin(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"every chunk is in the chain once and whole", testChunks},
		{"what was acknowledged survives kill -9", testKilledHost},
		{"the store goes away and comes back", testStoreAway},
		{"corrupt chunks are kept byte for byte", testCorruptChunks},
		{"a configuration that cannot work is refused", testRefused},
		{"reloads under load leave nothing behind", testReloadedHost},
		{"instances that are not open take nothing", testNotOpen},
		{"a panic while starting is a refusal", testPanicWhileStarting},
	} {
		t.Run(test.name, test.run)
	}
}

// TestDisk is what is promised of the plugin when the disk below its store_dir fails.
func TestDisk(t *testing.T) {
	host.Plugin(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"a step fails, or is the last", testFailingSteps},
		{"a step fails while there is a real store", testFailingStepsWithStore},
		{"the power is cut", testPowerCut},
		{"the disk is full for a while", testFullDisk},
		{"what waits for the store fills the disk", testFullWhileStoreAway},
		{"the disk is read-only", testReadOnly},
		{"a bit flips", testDamage},
	} {
		t.Run(test.name, test.run)
	}
}

// eventually waits until check has nothing to complain about.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		time.Sleep(pollInterval)
	}
}

var errNotYet = errors.New("not yet")
