package record

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files in testdata anew")

// The chunks that a real Fluent Bit delivered, and what becomes of them: each line of a .ndjson file is a brace and the
// body of an entry.
func TestGolden(t *testing.T) {
	var b Batch
	for path, chunk := range chunks(t) {
		t.Run(path, func(t *testing.T) {
			check(t, &b, chunk)
			if b.Reasons() != "" {
				t.Error(b.Reasons())
			}
			var got strings.Builder
			for _, body := range bodies(&b) {
				got.WriteString("{" + body + "\n")
			}
			golden := strings.TrimSuffix(path, ".msgpack") + ".ndjson"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("%s: got\n%swant\n%s", golden, got.String(), want)
			}
			for n := range chunk { // a chunk that is cut anywhere, and one with a damaged byte
				check(t, &b, chunk[:n])
				damaged := append([]byte(nil), chunk...)
				damaged[n] ^= 0xc1
				check(t, &b, damaged)
			}
		})
	}
}
