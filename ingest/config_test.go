package ingest

import (
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// good are the settings that a section cannot do without.
var good = map[string]string{
	"chain": "audit.example.com/prod", "bucket": "audit", "signing_key": "/etc/auditchain/keys/auditchain.pem", "retention": "7y",
}

func parseWith(key, value string) (Config, error) {
	return ParseConfig(func(k string) string {
		if k == key {
			return value
		}
		return good[k]
	})
}

func TestParseConfigDefaults(t *testing.T) {
	c, err := parseWith("", "")
	if err != nil {
		t.Fatal(err)
	}
	if c.StoreDir != "/var/lib/auditchain" || c.TotalFileSize != 64_000_000 || c.UploadTimeout != time.Minute ||
		c.Heartbeat != time.Hour || c.LockMode != "COMPLIANCE" || c.Level != chain.LevelFastest || c.OnLostJournal != Resume ||
		c.StoreDirLimit != 10_000_000_000 || c.Storage.InsecureSkipVerify {
		t.Errorf("%+v", c)
	}
}

func TestParseConfigValues(t *testing.T) {
	tests := []struct {
		key, value string
		ok         func(c Config) bool
	}{
		{"total_file_size", "32M", func(c Config) bool { return c.TotalFileSize == 32_000_000 }},
		{"total_file_size", "1.5MB", func(c Config) bool { return c.TotalFileSize == 1_500_000 }},
		{"total_file_size", "2000000", func(c Config) bool { return c.TotalFileSize == 2_000_000 }},
		{"store_dir_limit_size", "0", func(c Config) bool { return c.StoreDirLimit == 0 }},
		{"store_dir_limit_size", "1g", func(c Config) bool { return c.StoreDirLimit == 1_000_000_000 }},
		{"upload_timeout", "10m", func(c Config) bool { return c.UploadTimeout == 10*time.Minute }},
		{"upload_timeout", "90", func(c Config) bool { return c.UploadTimeout == 90*time.Second }},
		{"heartbeat_interval", "1d", func(c Config) bool { return c.Heartbeat == 24*time.Hour }},
		{"retention", "1y30d", func(c Config) bool { return c.Retention == chain.Retention{Years: 1, Days: 30} }},
		{"retention", "400D", func(c Config) bool { return c.Retention == chain.Retention{Days: 400} }},
		{"framework", "PCI-DSS, sec-17a-4", func(c Config) bool { return c.Retention.Years == 7 }}, // retention is longer
		{"framework", "nhs,fca", func(c Config) bool { return c.Retention.Years == 8 }},
		{"endpoint", "minio:9000", func(c Config) bool { return c.Storage.Endpoint == "https://minio:9000" }},
		{"prefix", "/a/b/", func(c Config) bool { return c.Prefix == "a/b" }},
		{"lock_mode", "Governance", func(c Config) bool { return c.LockMode == "GOVERNANCE" }},
		{"compression_level", "better", func(c Config) bool { return c.Level == chain.LevelBetter }},
		{"previous_signing_key", "/keys/old.pem", func(c Config) bool { return c.PreviousKey == "/keys/old.pem" && c.SigningKey == good["signing_key"] }},
		{"tls_verify", "off", func(c Config) bool { return c.Storage.InsecureSkipVerify }},
	}
	for _, test := range tests {
		c, err := parseWith(test.key, test.value)
		if err != nil || !test.ok(c) {
			t.Errorf("%s = %s: %+v, %v", test.key, test.value, c, err)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	tests := []struct{ key, value, want string }{
		{"chain", "", "chain: missing"},
		{"chain", "Prod EU", "chain: chain name"},
		{"bucket", "", "bucket: missing"},
		{"signing_key", "", "signing_key: missing"},
		{"retention", "", "retention: missing"},
		{"retention", "7", "retention: "},
		{"retention", "7m", "retention: "},
		{"retention", "0d", "retention: "},
		{"retention", "1d1d", "retention: "},
		{"retention", "99999999999999999999y", "retention: "},
		{"framework", "gdpr", "framework: "},
		{"total_file_size", "64X", "total_file_size: "},
		{"total_file_size", "10", "total_file_size: "},
		{"total_file_size", "1G", "total_file_size: "},
		{"total_file_size", "-5M", "total_file_size: "},
		{"total_file_size", "NaN", "total_file_size: "},
		{"store_dir_limit_size", "1e999G", "store_dir_limit_size: "},
		{"upload_timeout", "soon", "upload_timeout: "},
		{"upload_timeout", "0", "upload_timeout: "},
		{"heartbeat_interval", "3d", "heartbeat_interval: "},
		{"endpoint", "ftp://x", "endpoint: "},
		{"lock_mode", "none", "lock_mode: "},
		{"on_lost_journal", "ignore", "on_lost_journal: "},
		{"compression_level", "11", "compression_level: "},
		{"tls_verify", "maybe", "tls_verify: "},
		{"store_dir", "relative/dir", "store_dir: "},
		{"access_key", "only", "access_key: "},
	}
	for _, test := range tests {
		_, err := parseWith(test.key, test.value)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s = %q: %v, want %q", test.key, test.value, err, test.want)
		}
	}
	_, err := ParseConfig(func(string) string { return "" })
	for _, key := range []string{"chain", "bucket", "signing_key", "retention"} {
		if err == nil || !strings.Contains(err.Error(), key+": missing") {
			t.Errorf("with nothing set: %v does not name %s", err, key)
		}
	}
}

func TestIgnoredKeysOfOutS3(t *testing.T) {
	got := Ignored(func(key string) string {
		return map[string]string{"s3_key_format": "/x", "compression": "gzip", "bucket": "b"}[key]
	})
	if len(got) != 2 || !strings.HasPrefix(got[0], "compression ") || !strings.HasPrefix(got[1], "s3_key_format ") {
		t.Errorf("%q", got)
	}
}
