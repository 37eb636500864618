package ingest

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// Config is what the keys of the plugin's section say. docs: the table of keys in the README.
type Config struct {
	Chain      string
	Prefix     string
	Storage    storage.Config
	SigningKey string // path of a PEM file
	// PreviousKey is the path of a PEM file with the key that the chain was signed with until SigningKey came; "": there was none.
	PreviousKey string

	StoreDir      string // its chains' directories lie below
	StoreDirLimit int64  // bytes of journals and segments that wait there; 0: no limit

	TotalFileSize int64 // bytes of entry lines in a segment, about
	UploadTimeout time.Duration
	Level         chain.Level

	LockMode  string // COMPLIANCE or GOVERNANCE
	Retention chain.Retention

	Heartbeat     time.Duration
	OnLostJournal OnLostJournal
}

// OnLostJournal says what to do when the local state of an existing chain is gone.
type OnLostJournal string

// The choices of the key on_lost_journal.
const (
	Resume OnLostJournal = "resume" // go on from the last committed manifest, and say so in an entry
	Refuse OnLostJournal = "refuse" // do not start
)

// Frameworks are the retentions that a framework asks for; where several are named, the longest holds.
// To be confirmed with counsel: a retention in compliance mode cannot be shortened.
var Frameworks = map[string]chain.Retention{
	"eu-ai-act": {Days: 184}, // Regulation (EU) 2024/1689, Art. 19(1), 26(6): at least six months
	"pci-dss":   {Years: 1},  // PCI DSS 4.0, 10.5.1: twelve months
	"fca":       {Years: 5},  // FCA SYSC 9.1: five years
	"mifid2":    {Years: 7},  // MiFID II, Art. 16(7): five years, up to seven on request
	"sec-17a-4": {Years: 6},  // SEC 17a-4: six years
	"nhs":       {Years: 8},  // NHS Records Management Code: eight years for most records
}

// maxTotalFileSize keeps segments below the 128 MiB that cosign reads.
const maxTotalFileSize = 120_000_000

// ParseConfig reads the keys of a plugin's section through get, which returns "" for a key that is not there. The error
// names every key that is wrong, and what to write instead.
func ParseConfig(get func(key string) string) (Config, error) {
	p := parser{get: get}
	c := Config{
		Chain:       p.required("chain", "the chain's name, like audit.example.com/prod-eu1"),
		Prefix:      strings.Trim(get("prefix"), "/"),
		SigningKey:  p.required("signing_key", "the path of the PEM file that `auditchain keygen` wrote"),
		PreviousKey: get("previous_signing_key"),
		Storage: storage.Config{
			Bucket:             p.required("bucket", "the name of a bucket with Object Lock, or dir:/absolute/path"),
			Endpoint:           p.endpoint(),
			Region:             get("region"),
			AccessKey:          get("access_key"),
			SecretKey:          get("secret_key"),
			SessionToken:       get("session_token"),
			Profile:            get("profile"),
			RoleARN:            get("role_arn"),
			StorageClass:       get("storage_class"),
			STSEndpoint:        get("sts_endpoint"),
			CAFile:             get("tls_ca_file"),
			InsecureSkipVerify: !p.boolean("tls_verify", true),
		},
		StoreDir:      p.text("store_dir", "/var/lib/auditchain"),
		StoreDirLimit: p.size("store_dir_limit_size", 10_000_000_000, 0, 1<<60),
		TotalFileSize: p.size("total_file_size", 64_000_000, 1_000_000, maxTotalFileSize),
		UploadTimeout: p.duration("upload_timeout", time.Minute, time.Second, 24*time.Hour),
		Level:         p.level(),
		LockMode:      p.choice("lock_mode", "compliance", "compliance", "governance"),
		Heartbeat:     p.duration("heartbeat_interval", time.Hour, time.Second, 24*time.Hour),
		OnLostJournal: OnLostJournal(p.choice("on_lost_journal", string(Resume), string(Resume), string(Refuse))),
	}
	c.LockMode = strings.ToUpper(c.LockMode)
	c.Retention = p.retention()
	if c.Chain != "" {
		p.check("chain", chain.CheckName(c.Chain))
	}
	if !filepath.IsAbs(c.StoreDir) {
		p.fail("store_dir", "%q is not an absolute path", c.StoreDir)
	}
	if (c.Storage.AccessKey == "") != (c.Storage.SecretKey == "") {
		p.fail("access_key", "access_key and secret_key must be set together or not at all")
	}
	return c, errors.Join(p.errs...)
}

// Ignored returns the keys of Fluent Bit's out_s3 that are set but mean nothing here, with what holds instead.
func Ignored(get func(key string) string) []string {
	var all []string
	for key, why := range map[string]string{
		"s3_key_format":          "keys are fixed by the format",
		"compression":            "segments are always zstd; see compression_level",
		"format":                 "entries are always JSON lines",
		"json_date_key":          "an entry's time always stands in \"time\"",
		"json_date_format":       "times are always RFC 3339 in UTC",
		"log_key":                "records are always kept whole",
		"use_put_object":         "every object is written by one PUT",
		"upload_chunk_size":      "every object is written by one PUT",
		"static_file_path":       "keys are fixed by the format",
		"preserve_data_ordering": "order is always kept",
		"canned_acl":             "set the bucket's policy instead",
		"content_type":           "content types are fixed by the format",
		"external_id":            "not supported",
	} {
		if get(key) != "" {
			all = append(all, key+" is ignored: "+why)
		}
	}
	slices.Sort(all)
	return all
}

// parser collects what is wrong instead of stopping at the first.
type parser struct {
	get  func(string) string
	errs []error
}

func (p *parser) fail(key, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: "+format, append([]any{key}, args...)...))
}

func (p *parser) check(key string, err error) {
	if err != nil {
		p.fail(key, "%w", err)
	}
}

func (p *parser) text(key, otherwise string) string {
	if s := p.get(key); s != "" {
		return s
	}
	return otherwise
}

func (p *parser) required(key, what string) string {
	s := p.get(key)
	if s == "" {
		p.fail(key, "missing: set it to %s", what)
	}
	return s
}

func (p *parser) choice(key, otherwise string, choices ...string) string {
	s := strings.ToLower(p.text(key, otherwise))
	if !slices.Contains(choices, s) {
		p.fail(key, "%q is not one of %s", s, strings.Join(choices, ", "))
	}
	return s
}

func (p *parser) boolean(key string, otherwise bool) bool {
	switch strings.ToLower(p.get(key)) {
	case "":
		return otherwise
	case "on", "true", "yes":
		return true
	case "off", "false", "no":
		return false
	}
	p.fail(key, "%q is neither on nor off", p.get(key))
	return otherwise
}

// endpoint reads the store's URL. As in out_s3 the scheme may be left out: then it is https.
func (p *parser) endpoint() string {
	s := p.get("endpoint")
	if s != "" && !strings.Contains(s, "://") {
		s = "https://" + s
	}
	if s != "" && !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") {
		p.fail("endpoint", "%q does not begin with https:// or http://", s)
	}
	return s
}

func (p *parser) level() chain.Level {
	level, err := chain.ParseLevel(p.text("compression_level", "fastest"))
	p.check("compression_level", err)
	return level
}

func (p *parser) retention() chain.Retention {
	s, frameworks := p.get("retention"), p.get("framework")
	var longest chain.Retention
	if s == "" && frameworks == "" {
		p.fail("retention", "missing: set it to how long records must be kept, like 7y or 400d, or set framework to one or more of %s",
			strings.Join(frameworkNames(), ", "))
	}
	if s != "" {
		r, err := chain.ParseRetention(s)
		p.check("retention", err)
		longest = r
	}
	for name := range strings.SplitSeq(frameworks, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "" {
			continue
		}
		r, ok := Frameworks[name]
		if !ok {
			p.fail("framework", "%q is not one of %s", name, strings.Join(frameworkNames(), ", "))
		}
		if longest.Less(r) {
			longest = r
		}
	}
	return longest
}

func frameworkNames() []string {
	var names []string
	for name := range Frameworks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// size reads a number of bytes as Fluent Bit does: K, M and G (KB, MB, GB) are powers of 1000.
func (p *parser) size(key string, otherwise, least, most int64) int64 {
	s := p.get(key)
	if s == "" {
		return otherwise
	}
	digits := strings.TrimSuffix(strings.ToUpper(s), "B")
	unit := int64(1)
	for i, suffix := range []string{"K", "M", "G", "T"} {
		if rest, ok := strings.CutSuffix(digits, suffix); ok {
			digits = rest
			for range i + 1 {
				unit *= 1000
			}
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(n >= 0) || n*float64(unit) > float64(1<<62) {
		p.fail(key, "%q is not a size like 500K, 64M or 10G", s)
		return otherwise
	}
	if bytes := int64(n * float64(unit)); bytes >= least && bytes <= most {
		return bytes
	}
	p.fail(key, "%s is not between %d and %d bytes", s, least, most)
	return otherwise
}

// duration reads a time as Fluent Bit does: a number of seconds, or one with s, m, h or d.
func (p *parser) duration(key string, otherwise, least, most time.Duration) time.Duration {
	s := p.get(key)
	if s == "" {
		return otherwise
	}
	digits, unit := strings.ToLower(s), time.Second
	for suffix, length := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
		if rest, ok := strings.CutSuffix(digits, suffix); ok {
			digits, unit = rest, length
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		p.fail(key, "%q is not a time like 60s, 10m or 1h", s)
		return otherwise
	}
	if d := time.Duration(n) * unit; d >= least && d <= most {
		return d
	}
	p.fail(key, "%s is not between %s and %s", s, least, most)
	return otherwise
}
