package storage

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// errNoCredentials: nothing that could hold credentials has any.
var errNoCredentials = errors.New("no credentials found")

// roleService is how long the service that hands out a machine's role may take: it is near, or it is not there.
const roleService = 5 * time.Second

// credentials of cfg, fetched when they are first needed and again before they expire.
func (cfg Config) credentials(endpoint *url.URL, transport http.RoundTripper) *credentials.Credentials {
	base := cfg.baseCredentials()
	if cfg.RoleARN == "" {
		return base
	}
	role := &credentials.STSAssumeRole{
		Client:      &http.Client{Transport: transport, Timeout: cfg.Timeout},
		STSEndpoint: cfg.stsEndpoint(endpoint),
		Options:     credentials.STSAssumeRoleOptions{RoleARN: cfg.RoleARN, RoleSessionName: "auditchain", Location: cfg.Region},
	}
	return credentials.New(&assumedRole{STSAssumeRole: role, base: base})
}

func (cfg Config) baseCredentials() *credentials.Credentials {
	if cfg.AccessKey != "" {
		return credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, cfg.SessionToken)
	}
	file := source{"shared credentials file", &credentials.FileAWSCredentials{Profile: cfg.Profile}}
	if cfg.Profile != "" {
		return credentials.New(&firstOf{sources: []source{file}})
	}
	sources := []source{{"environment", &credentials.EnvAWS{}}, file}
	if !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") || os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" {
		sources = append(sources, source{"role of this machine", &credentials.IAM{Region: cfg.Region, Client: &http.Client{Timeout: roleService}}})
	}
	return credentials.New(&firstOf{sources: sources})
}

func (cfg Config) stsEndpoint(endpoint *url.URL) string {
	switch {
	case cfg.STSEndpoint != "":
		return cfg.STSEndpoint
	case !s3utils.IsAmazonEndpoint(*endpoint):
		return endpoint.String()
	case strings.HasPrefix(cfg.Region, "cn-"):
		return "https://sts." + cfg.Region + ".amazonaws.com.cn"
	}
	return "https://sts." + cfg.Region + ".amazonaws.com"
}

type source struct {
	name string
	credentials.Provider
}

// firstOf is minio-go's chain of providers, except that it tells why there are no credentials where that sends the request unsigned.
type firstOf struct {
	sources []source
	current credentials.Provider
}

func (f *firstOf) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	var reasons []string
	for _, s := range f.sources {
		value, err := s.RetrieveWithCredContext(cc)
		if err == nil && value.AccessKeyID != "" && value.SecretAccessKey != "" {
			f.current = s
			return value, nil
		}
		if err == nil {
			err = errors.New("none")
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", s.name, err))
	}
	return credentials.Value{}, fmt.Errorf("%w (%s)", errNoCredentials, strings.Join(reasons, "; "))
}

func (f *firstOf) Retrieve() (credentials.Value, error) { return f.RetrieveWithCredContext(nil) }

func (f *firstOf) IsExpired() bool { return f.current == nil || f.current.IsExpired() }

// assumedRole is minio-go's STSAssumeRole, except that the credentials it starts from may themselves change.
type assumedRole struct {
	*credentials.STSAssumeRole
	base *credentials.Credentials
}

func (a *assumedRole) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	base, err := a.base.GetWithContext(cc)
	if err != nil {
		return credentials.Value{}, err
	}
	a.Options.AccessKey, a.Options.SecretKey, a.Options.SessionToken = base.AccessKeyID, base.SecretAccessKey, base.SessionToken
	return a.STSAssumeRole.RetrieveWithCredContext(cc)
}

func (a *assumedRole) Retrieve() (credentials.Value, error) { return a.RetrieveWithCredContext(nil) }
