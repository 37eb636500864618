package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// refusal is a configuration that cannot work.
type refusal struct {
	name   string
	store  *store // nil: any
	change func(t *testing.T, l *auditLog, s fluentbit.Section) fluentbit.Section
	want   string // the message that must come, whole; … stands for anything
}

// refusals are the mistakes that people make, with what they are told.
func refusals() []refusal {
	set := func(key, value string) func(*testing.T, *auditLog, fluentbit.Section) fluentbit.Section {
		return func(_ *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section { return s.With(key, value) }
	}
	return []refusal{
		{name: "no chain", change: set("chain", ""),
			want: "chain: missing: set it to the chain's name, like audit.example.com/prod-eu1"},
		{name: "chain misspelt", change: set("chain", "Audit Example"),
			want: `chain: chain name "Audit Example" is not like audit.example.com/prod-eu1: lower-case letters, digits, '.', '_', '-' and '/', at most 200`},
		{name: "no signing key", change: set("signing_key", ""),
			want: "signing_key: missing: set it to the path of the PEM file that `auditchain keygen` wrote"},
		{name: "signing key not there", change: set("signing_key", "/nowhere/audit.pem"),
			want: "signing_key: open /nowhere/audit.pem: no such file or directory; `auditchain keygen` makes one"},
		{name: "signing key unreadable", change: set("signing_key", "/"), want: "signing_key: read /: is a directory"},
		{name: "signing key a public key", change: func(_ *testing.T, l *auditLog, s fluentbit.Section) fluentbit.Section {
			return s.With("signing_key", l.publicKey)
		}, want: `signing_key: …/audit.pub.pem: its PEM block is "PUBLIC KEY", want an unencrypted "PRIVATE KEY"`},
		{name: "signing key no key", change: func(t *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section {
			return s.With("signing_key", file(t, "not a key\n"))
		}, want: "signing_key: …/file: no PEM block in it"},
		{name: "no retention", change: set("retention", ""),
			want: "retention: missing: set it to how long records must be kept, like 7y or 400d, or set framework to one or more of eu-ai-act, fca, mifid2, nhs, pci-dss, sec-17a-4"},
		{name: "retention malformed", change: set("retention", "7 years"), want: `retention: "7 years" is not like 7y, 400d or 1y30d`},
		{name: "framework unknown", change: set("framework", "fca,hipa"),
			want: `framework: "hipa" is not one of eu-ai-act, fca, mifid2, nhs, pci-dss, sec-17a-4`},
		{name: "total_file_size malformed", change: set("total_file_size", "64 megs"),
			want: `total_file_size: "64 megs" is not a size like 500K, 64M or 10G`},
		{name: "total_file_size too small", change: set("total_file_size", "10"),
			want: "total_file_size: 10 is not between 1000000 and 120000000 bytes"},
		{name: "upload_timeout malformed", change: set("upload_timeout", "soon"),
			want: `upload_timeout: "soon" is not a time like 60s, 10m or 1h`},
		{name: "compression_level wrong", change: set("compression_level", "11"),
			want: `compression_level: compression level "11" is not fastest, default, better or best`},
		{name: "on_lost_journal wrong", change: set("on_lost_journal", "restart"),
			want: `on_lost_journal: "restart" is not one of resume, refuse`},
		{name: "lock_mode wrong", change: set("lock_mode", "legal"), want: `lock_mode: "legal" is not one of compliance, governance`},
		{name: "tls_verify wrong", change: set("tls_verify", "maybe"), want: `tls_verify: "maybe" is neither on nor off`},
		{name: "endpoint not a URL", change: set("endpoint", "ftp://store"),
			want: `endpoint: "ftp://store" does not begin with https:// or http://`},
		{name: "two mistakes", change: func(_ *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section {
			return s.With("chain", "").With("on_lost_journal", "no")
		}, want: `chain: missing: set it to the chain's name, like audit.example.com/prod-eu1; on_lost_journal: "no" is not one of resume, refuse`},
		{name: "half of the credentials", change: set("secret_key", ""),
			want: "access_key: access_key and secret_key must be set together or not at all"},
		{name: "no credentials", change: func(_ *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section {
			return s.With("access_key", "").With("secret_key", "").With("profile", "nobody")
		}, want: "access_key: checking s3://… at http://…: access denied: no credentials found (…)"},
		{name: "store_dir not absolute", change: set("store_dir", "store"), want: `store_dir: "store" is not an absolute path`},
		{name: "store_dir cannot be made", change: set("store_dir", "/dev/null/store"), want: "store_dir: mkdir /dev/null: not a directory"},
		{name: "no bucket", change: set("bucket", ""),
			want: "bucket: missing: set it to the name of a bucket with Object Lock, or dir:/absolute/path"},
		{name: "bucket not there, versitygw", store: gatewayHTTP, change: set("bucket", "nobodys"), want: noBucket},
		{name: "bucket not there, MinIO", store: minioHTTP, change: set("bucket", "nobodys"), want: noBucket},
		{name: "directory not there", change: set("bucket", "dir:/nowhere/audit"), want: "bucket: dir:/nowhere/audit: no such bucket: make the directory first; `auditchain init` makes one that is fit"},
		{name: "bucket without Object Lock, versitygw", store: gatewayHTTP, change: openBucket, want: noLock},
		{name: "bucket without Object Lock, MinIO", store: minioHTTP, change: openBucket, want: noLock},
		{name: "bucket with versioning only, versitygw", store: gatewayHTTP, change: versionedBucket, want: "bucket: checking s3://… at http://…: bucket has no Object Lock: 404 …; `auditchain init` makes one that is fit"},
		{name: "bucket with versioning only, MinIO", store: minioHTTP, change: versionedBucket, want: "bucket: checking s3://… at http://…: bucket has no Object Lock: 404 …; `auditchain init` makes one that is fit"},
		{name: "credentials wrong, versitygw", store: gatewayHTTP, change: set("secret_key", "guessed"), want: wrongCredentials},
		{name: "credentials wrong, MinIO", store: minioHTTP, change: set("secret_key", "guessed-it"), want: wrongCredentials},
		{name: "user unknown, versitygw", store: gatewayHTTP, change: set("access_key", "nobody"), want: wrongCredentials},
		{name: "user unknown, MinIO", store: minioHTTP, change: set("access_key", "nobody"), want: wrongCredentials},
		{name: "store out of reach", change: func(t *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section {
			return s.With("endpoint", fmt.Sprintf("http://127.0.0.1:%d", freePort(t)))
		}, want: "endpoint: checking s3://…: store cannot be reached: …: connection refused; the first start of a chain here needs the store"},
		{name: "unknown CA, versitygw", store: gatewayTLS, change: set("tls_ca_file", ""), want: unknownCA},
		{name: "unknown CA, MinIO", store: minioTLS, change: func(t *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section {
			ca, err := servers.NewCA(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return s.With("tls_ca_file", ca.File)
		}, want: unknownCA},
		{name: "CA file not there", store: minioTLS, change: set("tls_ca_file", "/nowhere/ca.crt"),
			want: "tls_ca_file: reading the CA file: open /nowhere/ca.crt: no such file or directory"},
		{name: "no TLS on the other side", store: minioHTTP, change: func(_ *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section {
			return s.With("endpoint", strings.Replace(s["endpoint"], "http://", "https://", 1))
		}, want: "endpoint: checking s3://… at https://…: … does not speak TLS (use http://)"},
		{name: "TLS on the other side, versitygw", store: gatewayTLS, change: useHTTP, want: "endpoint: checking s3://… at http://…: store cannot be reached: …; the first start of a chain here needs the store"},
		{name: "TLS on the other side, MinIO", store: minioTLS, change: useHTTP, want: "endpoint: checking s3://… at http://…: 400 …: Client sent an HTTP request to an HTTPS server (use https://)"},
	}
}

// What is said of the same mistake on every store.
const (
	noBucket         = "bucket: checking s3://nobodys at http://…: no such bucket: 404 NoSuchBucket: The specified bucket does not exist; `auditchain init` makes one that is fit"
	noLock           = "bucket: checking s3://… at http://…: bucket has no versioning, which Object Lock needs: use a bucket that was made with Object Lock; `auditchain init` makes one that is fit"
	wrongCredentials = "access_key: checking s3://… at http://…: access denied: 403 …(check the credentials)"
	unknownCA        = "endpoint: checking s3://… at https://…: certificate not trusted: …: certificate signed by unknown authority… (a private CA is named with tls_ca_file)"
)

func useHTTP(_ *testing.T, _ *auditLog, s fluentbit.Section) fluentbit.Section {
	return s.With("endpoint", strings.Replace(s["endpoint"], "https://", "http://", 1))
}

// versionedBucket names a bucket with versioning and without Object Lock.
func versionedBucket(t *testing.T, l *auditLog, s fluentbit.Section) fluentbit.Section {
	t.Helper()
	s = openBucket(t, l, s)
	if err := l.server.Client(t).EnableVersioning(t.Context(), s["bucket"]); err != nil {
		t.Fatal(err)
	}
	return s
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// openBucket names a bucket without Object Lock.
func openBucket(t *testing.T, l *auditLog, s fluentbit.Section) fluentbit.Section {
	t.Helper()
	name := l.bucket + "-open"
	if err := l.server.Client(t).MakeBucket(t.Context(), name, minio.MakeBucketOptions{Region: l.server.Region}); err != nil {
		t.Fatal(err)
	}
	return s.With("bucket", name)
}

// ourErrors are the messages of the plugin at level error.
func ourErrors(log string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^\[[^]]*\] \[error\] \[output:auditchain:[^]]*\] (.*)$`).FindAllStringSubmatch(log, -1) {
		all = append(all, m[1])
	}
	return all
}

// testRefused: the plugin says no to each, in one line that names what to do.
func testRefused(t *testing.T) {
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			_, section := r.prepare(t)
			h := host.Start(t, host.Plugin(t), host.Options{Env: []string{"HOME=/nonexistent", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}})
			for _, key := range slices.Sorted(maps.Keys(section)) {
				h.Send(t, "set "+key+" "+section[key])
			}
			if a := h.Do(t, "init auditchain.0"); a.Ret != "ERROR" {
				t.Errorf("it started: %+v", a)
			}
			h.End(t)
			r.check(t, h.Log())
		})
	}
}

// prepare returns the section with the mistake, and the log that it would write without.
func (r *refusal) prepare(t *testing.T) (*auditLog, fluentbit.Section) {
	t.Helper()
	s := r.store
	if s == nil {
		s = gatewayHTTP
	}
	l := newLog(t, s.open(t))
	return l, r.change(t, l, l.section())
}

// check sees to it that the one message of the plugin is the one that is wanted.
func (r *refusal) check(t *testing.T, log string) {
	t.Helper()
	said := ourErrors(log)
	want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(r.want), "…", ".*") + "$")
	if len(said) != 1 || !want.MatchString(said[0]) {
		t.Errorf("it said\n\t%s\nwant\n\t%s", strings.Join(said, "\n\t"), r.want)
	}
}

// refuses starts Fluent Bit, which must end at once.
func (a *aggregator) refuses(t *testing.T, r refusal) {
	t.Helper()
	a.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	code, err := a.process.Wait(ctx)
	if err != nil || code == 0 {
		t.Errorf("Fluent Bit ended with exit code %d, %v", code, err)
	}
	r.check(t, a.process.Log())
}

// testRefusedByFluentBit: a refusal ends Fluent Bit with an exit code that systemd and Kubernetes see.
func testRefusedByFluentBit(t *testing.T) {
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			l, section := r.prepare(t)
			a := newAggregator(t, []fluentbit.Section{section})
			a.refuses(t, r)
			if _, err := l.committed(t.Context(), l.server.Client(t)); !errors.Is(err, errNoManifest) {
				t.Errorf("it began a chain: %v", err)
			}
		})
	}
	t.Run("two outputs that write one chain", func(t *testing.T) {
		t.Parallel()
		l := newLog(t, gatewayHTTP.open(t))
		a := newAggregator(t, []fluentbit.Section{l.section(), l.section()})
		a.refuses(t, refusal{want: "store_dir: …/audit.example.com~e2e is in use by another writer of this chain: another output of this Fluent Bit, or another Fluent Bit"})
	})
}
