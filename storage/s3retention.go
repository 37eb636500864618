package storage

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7"
)

// maxRetentionAnswer is the longest answer about a retention that is read, in bytes.
const maxRetentionAnswer = 64 << 10

// retention asks for the lock of one version by GetObjectRetention, as some servers (versitygw) leave it out of the headers
// of a version that is not the current one, which an auditor must not take for a missing lock. It reads the answer
// itself, because minio-go insists on a root element of another name than theirs. A version without a lock and a
// server that does not know are no lock; a user who may not ask is ErrDenied.
func (s *S3) retention(ctx context.Context, key string, version Version) (mode string, until time.Time, err error) {
	query := url.Values{"retention": {""}}
	if version != "" {
		query.Set("versionId", version)
	}
	signed, err := s.read.Presign(ctx, http.MethodGet, s.cfg.Bucket, key, s.cfg.Timeout+time.Minute, query)
	if err != nil {
		return "", time.Time{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, signed.String(), nil)
	if err != nil {
		return "", time.Time{}, err
	}
	answer, err := s.clock.RoundTrip(request)
	if err != nil {
		return "", time.Time{}, err
	}
	defer answer.Body.Close()
	switch code := answer.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusForbidden, code == http.StatusTooManyRequests, code >= 500 && code != http.StatusNotImplemented:
		return "", time.Time{}, minio.ErrorResponse{StatusCode: code, Code: http.StatusText(code)}
	default:
		return "", time.Time{}, nil
	}
	var retention struct {
		Mode            string
		RetainUntilDate time.Time
	}
	if err := xml.NewDecoder(io.LimitReader(answer.Body, maxRetentionAnswer)).Decode(&retention); err != nil {
		return "", time.Time{}, fmt.Errorf("the answer is no retention: %w", err)
	}
	return retention.Mode, retention.RetainUntilDate, nil
}
