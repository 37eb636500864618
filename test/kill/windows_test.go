package kill

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/servers"
)

// Names of files in the chain's directory, as far as they are told apart here. What is pending may have its manifest's number in
// its name, and there may be several of them.
const (
	headFile      = "head.sigstore.json"
	pendingPrefix = "pending"
	journalPrefix = "journal-"
	journalSuffix = ".ndjson"
	temporary     = ".tmp-"
)

var pendingName = regexp.MustCompile(`^pending(?:-([0-9]+))?\.(json|ndjson\.zst|sigstore\.json)$`)

func isJournal(name string) bool {
	return strings.HasPrefix(name, journalPrefix) && strings.HasSuffix(name, journalSuffix)
}

// stages are patterns of files, each of which is there in one stage of a commit.
var stages = []*regexp.Regexp{
	regexp.MustCompile(`^pending.*\.ndjson\.zst$`), regexp.MustCompile(`^pending(-[0-9]+)?\.json$`),
	regexp.MustCompile(`^pending.*\.sigstore\.json$`), regexp.MustCompile(`^\.tmp-`),
}

// window is what a process was doing when it was killed, as the files that it left tell.
type window string

const (
	idle    window = "nothing to commit"
	taking  window = "journals alone"
	cut     window = "a journal's last chunk cut"
	writing window = "a file half written"
	sealed  window = "segment written, no draft"
	drafted window = "draft written, segment on its way"
	signed  window = "manifest signed, on its way"
	tidying window = "committed, tidying up"
)

var allWindows = []window{idle, taking, cut, writing, sealed, drafted, signed, tidying}

// windows returns what the last process was doing when it was killed: one thing or several.
func (l *auditLog) windows() (map[window]bool, error) {
	names, err := l.files()
	if err != nil {
		return nil, err
	}
	return windowsOf(names, func(name string) []byte {
		data, _ := os.ReadFile(filepath.Join(l.dir, name)) // who is not there is empty
		return data
	}), nil
}

func windowsOf(names []string, read func(name string) []byte) map[window]bool {
	found := make(map[window]bool)
	committed := uint64(0) // manifests
	if m, err := chain.PeekManifest(read(headFile)); err == nil {
		committed = m.N + 1
	}
	type stage struct{ draft, segment, manifest bool }
	pending := make(map[uint64]stage)
	journals := 0
	slices.Sort(names) // the active journal is the last one
	for _, name := range names {
		switch m := pendingName.FindStringSubmatch(name); {
		case m != nil:
			n, err := strconv.ParseUint(m[1], 10, 64)
			if err != nil { // not in the name: there is one
				n = draftNumber(read(strings.TrimSuffix(name, m[2])+"json"), committed)
			}
			s := pending[n]
			s.draft = s.draft || m[2] == "json"
			s.segment = s.segment || m[2] == "ndjson.zst"
			s.manifest = s.manifest || m[2] == "sigstore.json"
			pending[n] = s
		case isJournal(name):
			journals++
			delete(found, cut)
			if !endsWhole(read(name)) {
				found[cut] = true
			}
		case strings.HasPrefix(name, temporary):
			found[writing] = true
		}
	}
	for n, s := range pending {
		switch {
		case n < committed || s.manifest && !s.draft:
			found[tidying] = true
		case s.manifest:
			found[signed] = true
		case s.draft:
			found[drafted] = true
		default:
			found[sealed] = true
		}
	}
	if len(pending) == 0 {
		found[map[bool]window{true: taking, false: idle}[journals > 0]] = true
	}
	return found
}

// draftNumber is the number of the manifest that a draft is of; otherwise if there is no draft.
func draftNumber(data []byte, otherwise uint64) uint64 {
	var p struct {
		Draft struct {
			N *uint64 `json:"n"`
		} `json:"draft"`
	}
	if json.Unmarshal(data, &p) != nil || p.Draft.N == nil {
		return otherwise
	}
	return *p.Draft.N
}

// endsWhole reports whether a journal ends with a commit line.
func endsWhole(journal []byte) bool {
	journal = bytes.TrimRight(journal, "\x00") // room that was taken in advance
	text, ok := bytes.CutSuffix(journal, []byte{'\n'})
	last := text[bytes.LastIndexByte(text, '\n')+1:]
	return len(journal) == 0 || ok && len(last) > 0 && last[0] == '#'
}

func TestWindows(t *testing.T) {
	genesis, err := os.ReadFile(filepath.Join(servers.Root(), "chain", "testdata", "vectors", "manifests", "000000000000.sigstore.json"))
	if err != nil {
		t.Fatal(err)
	}
	head := string(genesis)
	for _, c := range []struct {
		files map[string]string
		want  []window
	}{
		{map[string]string{}, []window{idle}},
		{map[string]string{"lock": "", headFile: head, "recent-chunks": ""}, []window{idle}},
		{map[string]string{"journal-00.ndjson": "{}\n#00\n"}, []window{taking}},
		{map[string]string{"journal-00.ndjson": "{}\n#00\n\x00\x00"}, []window{taking}},
		{map[string]string{"journal-00.ndjson": ""}, []window{taking}},
		{map[string]string{"journal-00.ndjson": "{}\n#00\n{}\n"}, []window{taking, cut}},
		{map[string]string{"journal-00.ndjson": "{}\n#00\n{\"se"}, []window{taking, cut}},
		{map[string]string{"journal-00.ndjson": "{}\n", "journal-01.ndjson": "{}\n#00\n"}, []window{taking}},
		{map[string]string{".tmp-pending.json": "", "pending.ndjson.zst": ""}, []window{writing, sealed}},
		{map[string]string{headFile: head, "pending.json": `{"draft":{"n":1}}`, "pending.ndjson.zst": ""}, []window{drafted}},
		{map[string]string{headFile: head, "pending.json": `{"draft":{"n":1}}`, "pending.ndjson.zst": "", "pending.sigstore.json": ""}, []window{signed}},
		{map[string]string{headFile: head, "pending.json": `{"draft":{"n":0}}`, "pending.ndjson.zst": ""}, []window{tidying}},
		{map[string]string{headFile: head, "pending-1.json": "", "pending-1.ndjson.zst": "", "pending-1.sigstore.json": "", "pending-2.json": "", "pending-2.ndjson.zst": "",
			"pending-3.ndjson.zst": "", "pending-0.json": ""}, []window{signed, drafted, sealed, tidying}},
		{map[string]string{headFile: head, "pending-000000000001.json": "", "pending-000000000001.ndjson.zst": ""}, []window{drafted}},
	} {
		got := windowsOf(slices.Collect(maps.Keys(c.files)), func(name string) []byte { return []byte(c.files[name]) })
		want := make(map[window]bool)
		for _, w := range c.want {
			want[w] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("%v: %v, want %v", slices.Sorted(maps.Keys(c.files)), got, want)
		}
	}
}
