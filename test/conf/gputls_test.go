package conf

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/host"
)

// Both ends with the configurations that we ship and the certificates that our script makes: a record arrives. With any other
// certificate at either end nothing does, and one end's log says why.
func TestGPUMutualTLS(t *testing.T) {
	fluentBit(t)
	host.Plugin(t)
	pki := t.TempDir()
	at := func(name string) string { return filepath.Join(pki, name) }
	issued(t, pki, "ca")
	issued(t, pki, "server", "localhost", "127.0.0.1")
	issued(t, pki, "server", "aggregator.example.com")
	issued(t, pki, "client", "gpu-01")
	sameCA(t, pki, at("by-name"))
	issued(t, at("by-name"), "server", "localhost")
	sameCA(t, pki, at("thief")) // a GPU server that calls itself as the aggregator is called
	issued(t, at("thief"), "client", "localhost")
	issued(t, at("other"), "ca")
	issued(t, at("other"), "client", "gpu-01")
	issued(t, at("other"), "server", "localhost")
	expired(t, pki, "localhost", at("expired-server"))
	expired(t, pki, "gpu-01", at("expired-client"))

	// The CA's file of one host and the certificate of another: who holds these two does not hold the CA's key.
	stranger := at("stranger")
	copyTLS(t, at("other/gpu-01"), stranger)
	trusting(t, at("gpu-01"), stranger)
	impostor := at("impostor")
	copyTLS(t, at("other/localhost"), impostor)
	trusting(t, at("localhost"), impostor)
	alone := at("self-signed")
	copyTLS(t, at("gpu-01"), alone)
	selfSigned(t, alone)

	const refused = "certificate verify failed"
	gpus, aggregators := onGPU(t), all(t)
	for i, test := range []struct {
		name        string
		gpu, server string   // directories of their certificates
		calls       string   // how the GPU server names the aggregator
		leaveOut    []string // of the GPU server's settings
		says        string   // GPU server's log, why nothing got through; "": it did
		answers     string   // the aggregator's, where it was the one to refuse
	}{
		{name: "as made", gpu: at("gpu-01"), server: at("localhost"), calls: "localhost"},
		{name: "by address", gpu: at("gpu-01"), server: at("localhost"), calls: "127.0.0.1"},

		{name: "no certificate", gpu: at("gpu-01"), server: at("localhost"), calls: "localhost",
			leaveOut: []string{"tls.crt_file", "tls.key_file"}, says: "certificate required", answers: "peer did not return a certificate"},
		{name: "self-signed", gpu: alone, server: at("localhost"), calls: "localhost", says: "unknown ca", answers: refused},
		{name: "another CA's client", gpu: stranger, server: at("localhost"), calls: "localhost", says: "unknown ca", answers: refused},
		{name: "expired client", gpu: at("expired-client"), server: at("localhost"), calls: "localhost", says: "certificate expired", answers: refused},
		{name: "server as client", gpu: at("localhost"), server: at("localhost"), calls: "localhost", says: "unsupported certificate", answers: refused},

		{name: "another name", gpu: at("gpu-01"), server: at("aggregator.example.com"), calls: "localhost", says: refused},
		{name: "another address", gpu: at("gpu-01"), server: at("by-name/localhost"), calls: "127.0.0.1", says: refused},
		{name: "another CA's server", gpu: at("gpu-01"), server: impostor, calls: "localhost", says: refused},
		{name: "expired server", gpu: at("gpu-01"), server: at("expired-server"), calls: "localhost", says: refused},
		{name: "client as server", gpu: at("gpu-01"), server: at("thief/localhost"), calls: "localhost", says: refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			aggregator := newAggregator(t, aggregators[i%2], test.server, storage.Config{Bucket: "dir:" + t.TempDir()})
			aggregator.start(t)
			gpu := newGPUNode(t, gpus[i%2], test.gpu, test.calls, aggregator.port, test.leaveOut...)
			gpu.append(t, "a.jsonl", `{"timestamp":"2026-11-23T07:25:01.123456Z","request_id":"r"}`+"\n")
			gpu.start(t)
			if test.says == "" {
				waitFor(t, "the record is acknowledged", func() bool {
					return metric(aggregator.httpPort, "fluentbit_output_proc_records_total", "audit") == 1
				})
				return
			}
			waitFor(t, "a failed delivery", func() bool { return gpu.said("failed to flush chunk") })
			waitFor(t, "the GPU server's log says "+test.says, func() bool { return gpu.said(test.says) })
			waitFor(t, "the aggregator's log says "+test.answers, func() bool { return aggregator.said(test.answers) })
			if n := metric(aggregator.httpPort, "fluentbit_input_records_total", "gpu"); n != 0 {
				t.Errorf("%d records got through", n)
			}
		})
	}
}

// sameCA makes dir one of certificates.sh with the CA that pki has.
func sameCA(t *testing.T, pki, dir string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(dir, "ca"), os.DirFS(filepath.Join(pki, "ca"))); err != nil {
		t.Fatal(err)
	}
}

// trusting gives the host's directory the CA's certificate of another one.
func trusting(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(from, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(to, "ca.crt"), string(text))
}

// expired lays out host's certificate in to, signed anew so that it ended a minute ago.
func expired(t *testing.T, pki, host, to string) {
	t.Helper()
	copyTLS(t, filepath.Join(pki, host), to)
	c := parseCertificate(t, filepath.Join(to, "tls.crt"))
	c.SerialNumber = big.NewInt(7)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	ca := filepath.Join(pki, "ca")
	writeCertificate(t, filepath.Join(to, "tls.crt"), c, parseCertificate(t, filepath.Join(ca, "ca.crt")), c.PublicKey, parseKey(t, filepath.Join(ca, "ca.key")))
}

// selfSigned lays a certificate that its own key has signed over the one in dir.
func selfSigned(t *testing.T, dir string) {
	t.Helper()
	key := parseKey(t, filepath.Join(dir, "tls.key"))
	c := parseCertificate(t, filepath.Join(dir, "tls.crt"))
	writeCertificate(t, filepath.Join(dir, "tls.crt"), c, c, key.Public(), key)
}

func writeCertificate(t *testing.T, path string, c, parent *x509.Certificate, public, signer any) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}
