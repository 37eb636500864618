package standard

import (
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/test/servers"
)

// copyWithAWS makes a copy with the AWS command line, if there is one, as the page says, from a bucket in which something lies over a
// manifest and a segment: the copy must be that in dir, and what lies over them be named.
func (w *writer) copyWithAWS(server *servers.Server, env []string, dir string) {
	t := w.t
	aws, err := exec.LookPath("aws")
	if err != nil {
		t.Log("there is no aws on this machine: the page's commands with it were not run")
		return
	}
	whole := &copied{t, dir}
	segment := whole.segment(0).Segment.Key
	client := server.Client(t)
	over := strings.NewReader("forged")
	if _, err := client.PutObject(t.Context(), "audit", chainName+"/"+manifestName(1), over, over.Size(), minio.PutObjectOptions{SendContentMd5: true}); err != nil {
		t.Fatal(err)
	}
	if err := client.RemoveObject(t.Context(), "audit", chainName+"/"+segment, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	begin, blocks := doc(t)
	for _, b := range blocks {
		if b.kind != "aws" {
			continue
		}
		// The names at the page's beginning are of a copy; here there is none yet.
		script := strings.ReplaceAll(begin, "segment=", "true ") + "aws() { '" + aws + "' --endpoint-url '" + server.Endpoint + "' \"$@\"; }\nBUCKET=audit CHAIN=" + chainName + "\n" + b.script
		script = strings.Replace(script, "# how the segment", "segment=$(payload \"$manifest\" | jq -r .predicate.segment.key)\n# how the segment", 1)
		out, err := run(append(env, "AWS_ACCESS_KEY_ID="+server.AccessKey, "AWS_SECRET_ACCESS_KEY="+server.SecretKey, "AWS_REGION="+server.Region), other, script)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"2 versions of " + chainName + "/" + manifestName(1), "a delete marker over " + chainName + "/" + segment, "COMPLIANCE\t20", `{"mode":"COMPLIANCE"`} {
			if !strings.Contains(out, want) {
				t.Errorf("the commands with aws did not say %q:\n%s", want, out)
			}
		}
	}
	for _, folder := range []string{"manifests", "segments"} {
		paths, err := filepath.Glob(filepath.Join(dir, folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("diff", "-r", filepath.Join(dir, folder), filepath.Join(other, folder)).CombinedOutput(); err != nil || len(paths) == 0 {
			t.Errorf("the copy with aws is another: %v\n%s", err, out)
		}
	}
}
