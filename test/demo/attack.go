package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/auditchain/auditchain/chain"
)

// look shows what is in the bucket, and how it is locked.
func (d *demo) look() error {
	title("What is in the bucket, as the store itself says")
	client, err := d.client()
	if err != nil {
		return err
	}
	say("%-76s %9s  %s", "object", "bytes", "locked")
	for object := range client.ListObjectsIter(d.ctx, bucketName, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if object.Err != nil {
			return object.Err
		}
		info, err := client.StatObject(d.ctx, bucketName, object.Key, minio.StatObjectOptions{VersionID: object.VersionID})
		if err != nil {
			return err
		}
		say("%-76s %9d  %s until %.10s", object.Key, object.Size,
			info.Metadata.Get("X-Amz-Object-Lock-Mode"), info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	}
	return nil
}

func (d *demo) client() (*minio.Client, error) {
	return minio.New(strings.TrimPrefix(d.server.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(d.server.AccessKey, d.server.SecretKey, ""), Region: d.server.Region,
	})
}

// attack does what someone with all rights on the bucket can do.
func (d *demo) attack() error {
	title("An attacker with every right on the bucket")
	client, err := d.client()
	if err != nil {
		return err
	}
	layout := chain.Layout{Chain: chainName}
	segment, version, err := d.segmentOfWanted(client, layout)
	if err != nil {
		return err
	}
	err = client.RemoveObject(d.ctx, bucketName, segment, minio.RemoveObjectOptions{VersionID: version, GovernanceBypass: true})
	if err == nil {
		return errors.New("the store deleted a locked version")
	}
	say("deletes the segment that holds the record:   refused by the store: %s", minio.ToErrorResponse(err).Code)

	forged := []byte(`{"seq":0,"record":{"request_id":"` + d.wanted + `","model_id":"another-model"}}` + "\n")
	if _, err := client.PutObject(d.ctx, bucketName, segment, bytes.NewReader(forged), int64(len(forged)),
		minio.PutObjectOptions{DisableMultipart: true, SendContentMd5: true, DisableContentSha256: true}); err != nil {
		return fmt.Errorf("laying a forged version: %w", err)
	}
	say("lays a forged version over it:               the store lets that happen")
	if err := client.RemoveObject(d.ctx, bucketName, layout.Manifest(1), minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("laying a delete marker: %w", err)
	}
	say("lays a delete marker over manifest 1:        the store lets that happen")
	say("")
	say("A reader of the latest versions would now believe the forgery. The auditor does not:")
	say("")
	out, err := d.auditchain(1, append([]string{"verify", "--expect-head", "kept.head"}, d.target()...)...)
	if err != nil {
		return err
	}
	for _, name := range []string{segment, layout.Manifest(1)} {
		if !strings.Contains(out, name) {
			return fmt.Errorf("verify did not name %s", name)
		}
	}
	title("And the record is still found, as it was written")
	return d.show()
}

// segmentOfWanted returns the object that holds the record which is asked for.
func (d *demo) segmentOfWanted(client *minio.Client, layout chain.Layout) (key, version string, err error) {
	for object := range client.ListObjectsIter(d.ctx, bucketName, minio.ListObjectsOptions{Prefix: layout.Segments(), Recursive: true, WithVersions: true}) {
		if object.Err != nil {
			return "", "", object.Err
		}
		return object.Key, object.VersionID, nil // the first one: the record is among the first
	}
	return "", "", errors.New("there are no segments")
}
