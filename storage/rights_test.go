package storage_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
	"github.com/auditchain/auditchain/test/servers"
)

// writerRights are those that S3's documentation asks for.
var writerRights = []string{
	"s3:PutObject", "s3:PutObjectRetention", "s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention",
	"s3:ListBucketVersions", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration",
}

// TestLeastRights: a writer with these rights can do all that a Bucket does, and learns which of them is missing.
func TestLeastRights(t *testing.T) {
	server := servers.MinIO(t)
	server.MakeLockedBucket(t, "audit")
	admin := open(t, configOf(server, "audit"))
	version, err := admin.Create(t.Context(), "k", strings.NewReader("x"), storagetest.Options([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}

	use := func(b storage.Bucket, key string) error {
		if err := b.Check(t.Context()); err != nil {
			return err
		}
		if _, err := b.Create(t.Context(), key, strings.NewReader("x"), storagetest.Options([]byte("x"))); err != nil {
			return err
		}
		if _, err := b.Versions(t.Context(), key); err != nil {
			return err
		}
		for _, v := range []string{"", version} {
			r, _, err := b.Open(t.Context(), "k", v, 0, -1)
			if err != nil {
				return err
			}
			r.Close()
		}
		info, err := b.Stat(t.Context(), "k", version)
		if err == nil && info.LockMode == "" {
			return errNoLockShown
		}
		return err
	}
	if err := use(open(t, session(t, server, writerRights)), "all"); err != nil {
		t.Errorf("with all rights: %v", err)
	}
	for _, right := range append(writerRights, "s3:GetObject s3:GetObjectVersion") {
		without := strings.Fields(right)
		rights := slices.DeleteFunc(slices.Clone(writerRights), func(r string) bool { return slices.Contains(without, r) })
		err := use(open(t, session(t, server, rights)), "without "+right)
		switch right {
		case "s3:GetObject", "s3:GetObjectVersion": // AWS wants the second where a version is named, to MinIO each is as good as the other
			if err != nil {
				t.Errorf("without %s: %v", right, err)
			}
		default:
			if !errors.Is(err, storage.ErrDenied) || !strings.Contains(err.Error(), without[0]) {
				t.Errorf("without %s: %v", right, err)
			}
		}
	}
}

var errNoLockShown = errors.New("the store does not tell the lock")

// session is the configuration of somebody with these rights only.
func session(t *testing.T, server *servers.Server, rights []string) storage.Config {
	t.Helper()
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{
		map[string]any{"Effect": "Allow", "Action": rights, "Resource": []string{"arn:aws:s3:::audit", "arn:aws:s3:::audit/*"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	role, err := credentials.NewSTSAssumeRole(server.Endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: server.AccessKey, SecretKey: server.SecretKey, Location: server.Region, Policy: string(policy),
	})
	if err != nil {
		t.Fatal(err)
	}
	value, err := role.GetWithContext(nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := configOf(server, "audit")
	cfg.AccessKey, cfg.SecretKey, cfg.SessionToken = value.AccessKeyID, value.SecretAccessKey, value.SessionToken
	return cfg
}

// TestRole: with a role, requests carry what the role's service handed out, over TLS with the same CA.
func TestRole(t *testing.T) {
	server := servers.MinIO(t, servers.WithTLS())
	server.MakeLockedBucket(t, "audit")
	cfg := configOf(server, "audit")
	cfg.RoleARN = "arn:aws:iam::123456789012:role/auditor"
	if err := open(t, cfg).Check(t.Context()); err != nil {
		t.Error(err)
	}
	cfg.SecretKey += "x"
	if err := open(t, cfg).Check(t.Context()); !errors.Is(err, storage.ErrDenied) || !strings.Contains(err.Error(), "assuming the role") {
		t.Errorf("with a wrong key: %v", err)
	}
	cfg.STSEndpoint = "http://127.0.0.1:1"
	if err := open(t, cfg).Check(t.Context()); !errors.Is(err, storage.ErrUnreachable) {
		t.Errorf("without the role's service: %v", err)
	}
}
