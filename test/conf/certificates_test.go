package conf

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// certificates runs conf/certificates.sh for the directory, and says what it printed and whether it went well.
func certificates(t *testing.T, dir string, args ...string) (output string, ok bool) {
	t.Helper()
	servers.Programs(t, "openssl")
	cmd := exec.Command("sh", append([]string{filepath.Join(servers.Root(), "conf", "certificates.sh"), dir}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// issued makes certificates that must be made.
func issued(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, ok := certificates(t, dir, args...); !ok {
		t.Fatalf("certificates.sh %v: %s", args, out)
	}
}

func parseCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(decodePEM(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parseKey(t *testing.T, path string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(decodePEM(t, path))
	if err != nil {
		t.Fatal(err)
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("%s is a %T", path, key)
	}
	return k
}

func decodePEM(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	if block == nil || len(rest) > 0 {
		t.Fatalf("%s holds not one PEM block", path)
	}
	return block.Bytes
}

func TestCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b") // a path that needs its quotes
	issued(t, dir, "ca")
	issued(t, dir, "server", "aggregator.example.com", "10.0.0.7", "fd00::7")
	issued(t, dir, "client", "gpu-01")
	ca := parseCertificate(t, filepath.Join(dir, "ca", "ca.crt"))
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("the CA may do %b, CA %t", ca.KeyUsage, ca.IsCA)
	}
	for _, host := range []struct {
		name            string
		may, mayNot     x509.ExtKeyUsage
		names, notNames []string
	}{
		{"aggregator.example.com", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth,
			[]string{"aggregator.example.com", "10.0.0.7", "fd00::7"}, []string{"gpu-01", "10.0.0.8"}},
		{"gpu-01", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, []string{"gpu-01"}, []string{"aggregator.example.com"}},
	} {
		t.Run(host.name, func(t *testing.T) {
			at := func(file string) string { return filepath.Join(dir, host.name, file) }
			c := parseCertificate(t, at("tls.crt"))
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{host.may}}); err != nil {
				t.Error(err)
			}
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{host.mayNot}}); err == nil {
				t.Errorf("it serves for %v too", host.mayNot)
			}
			for _, name := range host.names {
				if err := c.VerifyHostname(name); err != nil {
					t.Error(err)
				}
			}
			for _, name := range host.notNames {
				if c.VerifyHostname(name) == nil {
					t.Errorf("it serves for %s too", name)
				}
			}
			if key := parseKey(t, at("tls.key")); key.Curve != elliptic.P256() || !key.PublicKey.Equal(c.PublicKey) {
				t.Error("the key is of another curve, or another's")
			}
			if days := c.NotAfter.Sub(c.NotBefore).Hours() / 24; days < 90 || days > 398 {
				t.Errorf("it is valid for %f days", days)
			}
			if !bytes.Equal(parseCertificate(t, at("ca.crt")).Raw, ca.Raw) {
				t.Error("its CA is another one")
			}
			private(t, at("tls.key"))
		})
	}
	private(t, filepath.Join(dir, "ca", "ca.key"))
}

// private checks that a file is for its owner alone.
func private(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %o", path, info.Mode().Perm())
	}
}

// A renewed certificate has the key and the CA that the old one had, and a time of its own.
func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	issued(t, dir, "ca")
	issued(t, dir, "client", "gpu-01")
	at := func(file string) string { return filepath.Join(dir, "gpu-01", file) }
	keys := []string{at("tls.key"), filepath.Join(dir, "ca", "ca.key"), filepath.Join(dir, "ca", "ca.crt")}
	before := make(map[string][]byte)
	for _, path := range keys {
		before[path] = decodePEM(t, path)
	}
	first := parseCertificate(t, at("tls.crt"))
	t.Setenv("DAYS", "30")
	issued(t, dir, "client", "gpu-01")
	second := parseCertificate(t, at("tls.crt"))
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 {
		t.Error("the same serial number again")
	}
	if left := time.Until(second.NotAfter).Hours() / 24; left < 29 || left > 30 {
		t.Errorf("it is valid for %f days more, not DAYS", left)
	}
	for _, path := range keys {
		if !bytes.Equal(before[path], decodePEM(t, path)) {
			t.Errorf("%s is another one", path)
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "gpu-01"))
	if err != nil || len(files) != 4 {
		t.Errorf("files %v, %v are left", files, err)
	}
}

func TestCertificatesRefused(t *testing.T) {
	dir := t.TempDir()
	if out, ok := certificates(t, dir, "client", "gpu-01"); ok || !strings.Contains(out, "make the CA first") {
		t.Errorf("without a CA: %s", out)
	}
	issued(t, dir, "ca")
	issued(t, dir, "server", "aggregator")
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"ca"}, "there already"},
		{[]string{"client", "aggregator"}, "not for both"},
		{[]string{"client", "ca"}, "not the name"},
		{[]string{"client", "../gpu"}, "not the name"},
		{[]string{"client", "-gpu"}, "not the name"},
		{[]string{"client", ""}, "not the name"},
		{[]string{"server", "aggregator", "a,DNS:b"}, "not the name"},
		{[]string{"client", strings.Repeat("a", 65)}, "longer"},
		{[]string{"server", "b", "1.2.3"}, "1.2.3"},
		{[]string{"client"}, "usage:"},
		{[]string{"client", "a", "b"}, "usage:"},
		{[]string{"ca", "b"}, "usage:"},
		{[]string{"renew", "b"}, "usage:"},
		{nil, "usage:"},
	} {
		if out, ok := certificates(t, dir, test.args...); ok || !strings.Contains(out, test.says) {
			t.Errorf("%q: %s", test.args, out)
		}
	}
	for _, days := range []string{"0", "-1", "x", "99999"} {
		t.Setenv("DAYS", days)
		if out, ok := certificates(t, dir, "client", "gpu-01"); ok || !strings.Contains(out, "DAYS") {
			t.Errorf("DAYS=%s: %s", days, out)
		}
	}
}
