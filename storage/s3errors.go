package storage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// maxSkew is how far a request's time may be from an S3 server's.
const maxSkew = 15 * time.Minute

// explain turns an error of the client into one of the package's, where a caller decides by it. Servers agree on the
// HTTP status of an answer more than on its code, so the status counts first. rights is what the call needs.
func (s *S3) explain(doing, rights string, err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || answer.StatusCode == 0 {
		return s.explainSilence(doing, err)
	}
	said := fmt.Sprintf("%d %s: %s", answer.StatusCode, answer.Code, strings.TrimSuffix(answer.Error(), "."))
	if answer.Region != "" && answer.Region != s.cfg.Region {
		said += fmt.Sprintf(" (the bucket is in region %s, not %s)", answer.Region, s.cfg.Region)
	}
	sentinel := s.sentinel(answer)
	switch sentinel {
	case nil:
		if strings.Contains(answer.Message, "HTTP request to an HTTPS server") {
			said += " (use https://)"
		}
		return fmt.Errorf("%s: %s", doing, said)
	case ErrDenied:
		switch answer.Code {
		case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidTokenId", "ExpiredToken":
			said += " (check the credentials)"
		default:
			said += " (needs the right " + rights + ")"
		}
	case ErrClockSkew:
		if skew, known := s.clock.skew(); known {
			said += fmt.Sprintf(" (its clock is %+d s from ours)", int(skew.Seconds()))
		}
	}
	return fmt.Errorf("%s: %w: %s", doing, sentinel, said)
}

func (s *S3) sentinel(answer minio.ErrorResponse) error {
	switch answer.Code {
	case "NoSuchBucket":
		return ErrNoBucket
	case "ObjectLockConfigurationNotFoundError":
		return ErrNoObjectLock
	case "BucketAlreadyExists", "BucketAlreadyOwnedByYou":
		return ErrBucketExists
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return ErrMismatch
	case "RequestTimeTooSkewed":
		return ErrClockSkew
	case "InvalidAccessKeyId", "InvalidToken", "ExpiredToken":
		return ErrDenied
	case "InvalidRequest":
		if strings.Contains(strings.ToLower(answer.Message), "lock") {
			return ErrNoObjectLock // a lock asked for of a bucket without
		}
	}
	switch code := answer.StatusCode; {
	case code == http.StatusPreconditionFailed:
		return ErrExists
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed: // 405: the version is a delete marker
		return ErrNotFound
	case code == http.StatusRequestedRangeNotSatisfiable:
		return io.ErrUnexpectedEOF
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		// The answer to a HEAD has no code that would say so.
		if skew, known := s.clock.skew(); known && skew.Abs() > maxSkew {
			return ErrClockSkew
		}
		return ErrDenied
	case code == http.StatusTooManyRequests, code >= 500 && code != http.StatusNotImplemented:
		return ErrUnreachable
	}
	return nil
}

// explainSilence is for errors that are no answer of the server.
func (s *S3) explainSilence(doing string, err error) error {
	var (
		untrusted *tls.CertificateVerificationError
		plain     tls.RecordHeaderError
		role      credentials.ErrorResponse
	)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.Is(err, errNoCredentials):
		return fmt.Errorf("%s: %w: %w", doing, ErrDenied, err)
	case errors.As(err, &role):
		return fmt.Errorf("%s: %w: assuming the role: %s: %w", doing, ErrDenied, role.STSError.Code, err)
	case errors.As(err, &untrusted):
		return fmt.Errorf("%s: %w: %w (a private CA is named with tls_ca_file)", doing, ErrCertificate, err)
	case errors.As(err, &plain), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return fmt.Errorf("%s: %w: %s does not speak TLS (use http://)", doing, ErrCertificate, s.endpoint.Host)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w: %s gave no answer in time: %w", doing, ErrUnreachable, s.endpoint.Host, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnreachable, err)
}

// brokeOff is true for a connection that was made and then ended without an answer. A server may well have given one: some (versitygw)
// refuse a large PUT without reading all of it and close, which takes their answer away from a client that is still sending, every time again.
func brokeOff(err error) bool {
	var (
		network *url.Error
		dialing *net.OpError
	)
	return errors.Is(err, ErrUnreachable) && errors.As(err, &network) && !network.Timeout() && !(errors.As(err, &dialing) && dialing.Op == "dial")
}
