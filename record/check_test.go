package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// bodies returns the bodies of the batch's entries.
func bodies(b *Batch) []string {
	var all []string
	from := 0
	for _, e := range b.Entries {
		all = append(all, string(b.Bodies[from:e.End]))
		from = e.End
	}
	return all
}

// check decodes chunk with b and holds what comes out against everything that must be true of any chunk.
func check(t *testing.T, b *Batch, chunk []byte) {
	t.Helper()
	b.Decode(chunk)
	got, want := bodies(b), reference(chunk)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("chunk %x\nentry %d is missing: %s", chunk, i, want[i].body)
		case i >= len(want):
			t.Fatalf("chunk %x\nentry %d should not be: %s", chunk, i, got[i])
		case got[i] != want[i].body || b.Entries[i].Kind != want[i].kind:
			t.Fatalf("chunk %x\nentry %d (kind %d)\n got %s\nwant %s", chunk, i, b.Entries[i].Kind, got[i], want[i].body)
		}
	}
	if len(got) > 0 && b.Entries[len(got)-1].End != len(b.Bodies) {
		t.Fatalf("chunk %x\nbytes behind the last body", chunk)
	}

	middle := chain.AppendMiddle(nil, time.Unix(0, 0), []byte("t"))
	var raw []byte // what the entries and the chunk's group markers account for
	var records, groups, quarantined int
	at := 0
	for i, body := range got {
		line := chain.AppendEntry(nil, uint64(i), chain.Hash{}, middle, nil, false, false, []byte(body))
		if !json.Valid(line) || bytes.IndexByte(line, '\n') >= 0 {
			t.Fatalf("chunk %x\nnot one line of JSON: %s", chunk, line)
		}
		parsed, err := chain.ParseEntry(line)
		if err != nil {
			t.Fatalf("chunk %x\n%s\n%v", chunk, line, err)
		}
		facts, read := b.Entries[i].Facts(), parsed.Facts()
		if !reflect.DeepEqual(facts, read) {
			t.Fatalf("chunk %x\n%s\nfacts %+v, but read back %+v", chunk, line, facts, read)
		}
		switch b.Entries[i].Kind {
		case Record:
			records++
			if e := b.Entries[i]; e.SourceID != nil && e.Content != ContentHash(parsed.Record) {
				t.Fatalf("chunk %x\n%s\nthe hash is not that of the record", chunk, line)
			}
		case Group:
			groups++
		case Quarantine:
			quarantined++
			var q struct {
				Reason       string
				Offset, Size int
				SHA256       string
				Data         []byte
			}
			if err := json.Unmarshal(parsed.Detail, &q); err != nil {
				t.Fatalf("chunk %x\n%s\n%v", chunk, line, err)
			}
			sum := sha256.Sum256(q.Data)
			if q.Size == 0 || q.Size != len(q.Data) || q.SHA256 != hex.EncodeToString(sum[:]) || q.Offset < at {
				t.Fatalf("chunk %x\nwrong quarantine %s", chunk, line)
			}
			// Between quarantined bytes there are whole values, and nothing else.
			raw = append(raw, wholeValues(t, chunk, at, q.Offset)...)
			raw = append(raw, q.Data...)
			at = q.Offset + q.Size
		}
	}
	raw = append(raw, wholeValues(t, chunk, at, len(chunk))...)
	if !bytes.Equal(raw, chunk) {
		t.Fatalf("chunk %x\nonly accounts for %x", chunk, raw)
	}
	if b.Records != records || b.Groups != groups || b.Quarantined != quarantined || (b.Reasons() == "") != (quarantined == 0) {
		t.Fatalf("chunk %x\ncounts %d %d %d %q", chunk, b.Records, b.Groups, b.Quarantined, b.Reasons())
	}
}

// wholeValues returns chunk[from:to] after making sure that values begin and end there.
func wholeValues(t *testing.T, chunk []byte, from, to int) []byte {
	t.Helper()
	i := from
	for i < to {
		n, fault := parseAt(chunk, i)
		if fault != "" {
			t.Fatalf("chunk %x\nbyte %d: %s, but not quarantined", chunk, i, fault)
		}
		i = n.end
	}
	if i != to {
		t.Fatalf("chunk %x\nquarantine begins within a value: byte %d", chunk, to)
	}
	return chunk[from:to]
}
