package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// TestRotation follows the procedure of docs/OPERATIONS.md: a new key at a restart, while records come, and the old one destroyed after it.
func TestRotation(t *testing.T) {
	if _, err := fluentbit.Find(); err != nil {
		t.Skip(err)
	}
	host.Plugin(t)
	for _, s := range []*store{minioHTTP, gatewayTLS} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, s.open(t))
			a := newAggregator(t, []fluentbit.Section{l.section()})
			a.run(t)
			p := produce(t, a.forward, "before", 2, 0)
			p.waitAcked(t, 500)
			a.stop(t)
			all := p.stop()

			next := filepath.Join(t.TempDir(), "new.pem")
			keygen := exec.CommandContext(t.Context(), filepath.Join(servers.Root(), "build", "auditchain"), "keygen", "-o", next)
			if out, err := keygen.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			a.Outputs[0] = l.section().With("signing_key", next)
			a.refuses(t, refusal{want: "signing_key: manifest … in s3://… is signed with the key " + l.key.Fingerprint().String() +
				", and this key is …; to have the chain go over to it, set previous_signing_key to the file of the key before"})

			a.Outputs[0] = a.Outputs[0].With("previous_signing_key", l.signingKey)
			a.run(t)
			p = produce(t, a.forward, "within", 2, 0)
			p.waitAcked(t, 500)
			eventually(t, "it says that the key was rotated", func() error {
				if !strings.Contains(a.process.Log(), "previous_signing_key is not needed any more") {
					return errNotYet
				}
				return nil
			})
			a.process.Kill()
			all = append(all, p.stop()...)

			if err := os.Remove(l.signingKey); err != nil {
				t.Fatal(err)
			}
			a.Outputs[0] = a.Outputs[0].With("previous_signing_key", "")
			a.run(t)
			all = append(all, produce(t, a.forward, "after", 1, 4).complete(t)...)
			a.stop(t)
			c := l.settle(t, a, all)

			rotation := uint64(0)
			for _, m := range c.manifests {
				if m.Kind == chain.KindRotation && rotation > 0 {
					t.Errorf("manifest %d is a second rotation", m.N)
				}
				if m.KeySince != rotation {
					t.Errorf("manifest %d is of the key of manifest %d, want %d", m.N, m.KeySince, rotation)
				}
				if m.Kind == chain.KindRotation {
					rotation = m.N
				}
			}
			if rotation == 0 || c.manifests[rotation+1].Segment != nil {
				t.Errorf("the rotation is manifest %d", rotation)
			}
		})
	}
}
