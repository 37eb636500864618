// Demo shows auditchain at work, on this machine alone: an S3 server with Object Lock, Fluent Bit with the plugin, some
// thousand inference records, the log that comes of them, and what becomes of an attacker. `make demo` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

const (
	bucketName = "audit"
	chainName  = "audit.example.com/demo"
	forwarded  = 3000 // records sent by the forward protocol
	tailed     = 1000 // records appended to a file
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is what the steps share.
type demo struct {
	ctx     context.Context
	dir     string // everything is below it, and goes with it
	server  *servers.Server
	wanted  string // request id of the record that is asked for at the end
	command string // path of auditchain
	plugin  string
	page    string // of the evidence
}

func run(ctx context.Context) (err error) {
	start := time.Now()
	dir, err := os.MkdirTemp("", "auditchain-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	build := filepath.Join(servers.Root(), "build")
	d := &demo{ctx: ctx, dir: dir, command: filepath.Join(build, "auditchain"), plugin: filepath.Join(build, "out_auditchain.so")}

	title("An S3 server with Object Lock")
	if d.server, err = servers.Start("versitygw", servers.WithDir(filepath.Join(dir, "s3"))); err != nil {
		return err
	}
	defer d.server.Kill()
	say("versitygw listens on %s", d.server.Endpoint)

	for _, step := range []func() error{d.setUp, d.send, d.look, d.verify, d.complete, d.evidence, d.attack} {
		if err := step(); err != nil {
			return err
		}
	}
	title("Done")
	say("%.0f seconds; everything is stopped and removed, but the page: open build/%s in a browser", time.Since(start).Seconds(), filepath.Base(d.page))
	return nil
}

// setUp makes the key and the bucket.
func (d *demo) setUp() error {
	title("A signing key, and a bucket that nobody can delete from")
	if _, err := d.auditchain(0, "keygen", "-o", "audit.pem"); err != nil {
		return err
	}
	_, err := d.auditchain(0, "init", "--endpoint", d.server.Endpoint, "--bucket", bucketName, "--chain", chainName,
		"--signing-key", "audit.pem", "--retention", "7y", "--store-dir", filepath.Join(d.dir, "store"))
	return err
}

// send has some thousand records pass through Fluent Bit, or through the plugin host where there is no Fluent Bit.
func (d *demo) send() error {
	title("%d inference records", forwarded+tailed)
	start := time.Now().UTC().Add(-time.Minute)
	gpu1 := recordtest.New(recordtest.Config{Seed: 1, Start: start, SourceID: "gpu-1/5f0c", Text: 400})
	gpu2 := recordtest.New(recordtest.Config{Seed: 2, Start: start, SourceID: "gpu-2/77aa", Text: 400, Incomplete: 100})
	events := []event{
		{start, "gpu-1/5f0c", 0, "start", 0},
		{start, "gpu-2/77aa", 0, "start", 0},
		{start.Add(30 * time.Second), "gpu-1/5f0c", 1, "stop", forwarded + lost},
		{start.Add(30 * time.Second), "gpu-2/77aa", 1, "stop", tailed},
	}
	var chunks []fluentbit.Chunk
	for i := range forwarded / 500 {
		if i == 4 {
			for range lost {
				gpu1.Next()
			}
		}
		var data []byte
		for j := range 500 {
			r := gpu1.Next()
			if i == 2 && j == 123 {
				d.wanted = r.RequestID
			}
			data = r.AppendEvent(data)
		}
		chunks = append(chunks, fluentbit.Chunk{Tag: "vllm.gpu-1", Events: data, Count: 500, Packed: true, ID: fmt.Sprint("chunk-", i)})
	}
	if _, err := fluentbit.Find(); err != nil {
		say("(%v)", err)
		say("The plugin host, a small C program that calls the plugin as Fluent Bit does, stands in for it.")
		return d.sendByHost(chunks, append(gpu2.Chunk(tailed), chunk(events)...))
	}
	return d.sendByFluentBit(chunks, append(gpu2.Lines(tailed), lines(events)...), tailed+len(events))
}

// output is the plugin's section.
func (d *demo) output() fluentbit.Section {
	return fluentbit.Section{
		"name": "auditchain", "match": "*", "workers": "2", "retry_limit": "no_limits",
		"chain": chainName, "signing_key": filepath.Join(d.dir, "audit.pem"), "retention": "7y",
		"bucket": bucketName, "endpoint": d.server.Endpoint, "store_dir": filepath.Join(d.dir, "store"), "upload_timeout": "1s",
	}
}

// verify has the command check the log, and find one record.
func (d *demo) verify() error {
	title("The auditor verifies it, with the public key and a reader's rights, and keeps the head")
	if _, err := d.auditchain(0, append([]string{"verify", "--save-head", "kept.head"}, d.target()...)...); err != nil {
		return err
	}
	title("The regulator asks for one record")
	return d.show()
}

// evidence makes a page of the record, that proves it without the log, and leaves it in build/ to be looked at.
func (d *demo) evidence() error {
	title("The regulator gets it as a page that verifies itself")
	if _, err := d.auditchain(0, append([]string{"evidence", d.wanted, "-o", "case.html"}, d.target()...)...); err != nil {
		return err
	}
	if _, err := d.auditchain(0, "verify-evidence", "case.html", "--key", "audit.pub.pem"); err != nil {
		return err
	}
	page, err := os.ReadFile(filepath.Join(d.dir, "case.html"))
	if err != nil {
		return err
	}
	d.page = filepath.Join(servers.Root(), "build", "case.html")
	return os.WriteFile(d.page, page, 0o644)
}

func (d *demo) show() error {
	out, err := d.auditchain(0, append([]string{"show", d.wanted}, d.target()...)...)
	if err == nil && !strings.Contains(out, d.wanted) {
		err = errors.New("the record that was shown is another one")
	}
	return err
}

func (d *demo) target() []string {
	return []string{"--endpoint", d.server.Endpoint, "--bucket", bucketName, "--chain", chainName, "--key", "audit.pub.pem"}
}

// auditchain runs the command as a user would, and fails unless it exits with the code that is wanted.
func (d *demo) auditchain(want int, args ...string) (string, error) {
	say("$ auditchain %s", strings.ReplaceAll(strings.Join(args, " "), d.dir+"/", ""))
	cmd := exec.CommandContext(d.ctx, d.command, args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), d.credentials()...)
	out, err := cmd.CombinedOutput()
	text := strings.ReplaceAll(string(out), d.dir+"/", "")
	for line := range strings.Lines(text) {
		if len(line) > 400 {
			line = line[:400] + "...\n"
		}
		fmt.Print("  ", line)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == want {
		err = nil
	} else if err == nil && want != 0 {
		err = fmt.Errorf("it exited with 0, want %d", want)
	}
	if err != nil {
		return text, fmt.Errorf("auditchain %s: %w", args[0], err)
	}
	if want != 0 {
		say("(exit code %d)", want)
	}
	return text, nil
}

func (d *demo) credentials() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + d.server.AccessKey, "AWS_SECRET_ACCESS_KEY=" + d.server.SecretKey, "AWS_REGION=" + d.server.Region}
}

func title(format string, args ...any) { fmt.Printf("\n== "+format+"\n\n", args...) }

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
