package storage_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/storage"
)

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(noPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]storage.Config{
		"no bucket":               {},
		"not an absolute path":    {Bucket: "dir:relative"},
		"belong together":         {Bucket: "b", AccessKey: "a"},
		`endpoint "s3.local:9"`:   {Bucket: "b", Endpoint: "s3.local:9"},
		`endpoint "ftp://h"`:      {Bucket: "b", Endpoint: "ftp://h"},
		`endpoint "http://h/b"`:   {Bucket: "b", Endpoint: "http://h/b"},
		`endpoint "http://a:b@h"`: {Bucket: "b", Endpoint: "http://a:b@h"},
		"reading the CA file":     {Bucket: "b", CAFile: filepath.Join(dir, "missing")},
		"no PEM certificate":      {Bucket: "b", CAFile: noPEM},
	} {
		if _, err := storage.Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
}

func TestString(t *testing.T) {
	for want, cfg := range map[string]storage.Config{
		"dir:/srv/audit":                      {Bucket: "dir:/srv/audit/"},
		"s3://audit in eu-central-1":          {Bucket: "audit", Region: "eu-central-1"},
		"s3://audit at http://127.0.0.1:9000": {Bucket: "audit", Endpoint: "http://127.0.0.1:9000", AccessKey: "a", SecretKey: "secret"},
	} {
		if got := open(t, cfg).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestCredentials: where the access key comes from, as AWS clients find it.
func TestCredentials(t *testing.T) {
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "credentials"), []byte("[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n[other]\naws_access_key_id = OTHER\naws_secret_access_key = s\naws_session_token = token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		env        map[string]string
		cfg        storage.Config
		key, token string // "" for none
	}{
		{"given", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}, storage.Config{AccessKey: "GIVEN", SecretKey: "s", SessionToken: "t"}, "GIVEN", "t"},
		{"environment before file", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}, storage.Config{}, "ENV", "t"},
		{"half an environment", map[string]string{"AWS_ACCESS_KEY_ID": "ENV"}, storage.Config{}, "FILE", ""},
		{"file", nil, storage.Config{}, "FILE", ""},
		{"profile by environment", map[string]string{"AWS_PROFILE": "other"}, storage.Config{}, "OTHER", "token"},
		{"profile before environment", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}, storage.Config{Profile: "other"}, "OTHER", "token"},
		{"no such profile", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}, storage.Config{Profile: "none"}, "", ""},
		{"none", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}, storage.Config{}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
				t.Setenv(name, "")
			}
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(files, "credentials"))
			t.Setenv("AWS_CONFIG_FILE", filepath.Join(files, "config"))
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			f, _ := newFake(t, func(http.ResponseWriter, *http.Request) {})
			c.cfg.Bucket, c.cfg.Endpoint = "audit", f.URL
			err := create(t.Context(), open(t, c.cfg))
			if c.key == "" {
				if !errors.Is(err, storage.ErrDenied) || !strings.Contains(err.Error(), "no credentials found") || strings.Contains(err.Error(), "\n") || f.count() != 0 {
					t.Errorf("%v after %d requests", err, f.count())
				}
				return
			}
			if err != nil || f.count() != 1 {
				t.Fatalf("%v after %d requests", err, f.count())
			}
			h := f.requests[0].Header
			if auth := h.Get("Authorization"); !strings.Contains(auth, "Credential="+c.key+"/") || h.Get("X-Amz-Security-Token") != c.token {
				t.Errorf("signed %q, token %q, want %s, %q", auth, h.Get("X-Amz-Security-Token"), c.key, c.token)
			}
		})
	}
}

func TestRegion(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	for _, c := range []struct{ given, env, want string }{{"", "", "us-east-1"}, {"", "eu-west-1", "eu-west-1"}, {"eu-north-1", "eu-west-1", "eu-north-1"}} {
		t.Setenv("AWS_DEFAULT_REGION", c.env)
		f, _ := newFake(t, func(http.ResponseWriter, *http.Request) {})
		if err := create(t.Context(), open(t, storage.Config{Bucket: "audit", Endpoint: f.URL, AccessKey: "a", SecretKey: "s", Region: c.given})); err != nil {
			t.Fatal(err)
		}
		if auth := f.requests[0].Header.Get("Authorization"); f.count() != 1 || !strings.Contains(auth, "/"+c.want+"/s3/") {
			t.Errorf("%+v: %d requests, signed %q", c, f.count(), auth)
		}
	}
}
