package witness

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/host"
)

// event is [[time, {}], {"a": n}], but for its last byte, which is a small number.
const event = "\x92\x92\xd7\x00\x65\x00\x00\x00\x00\x00\x00\x01\x80\x81\xa1a"

// TestWitness: the plugin works as it does without a witness, which has each chunk that was taken, and counts each that
// was not.
func TestWitness(t *testing.T) {
	dir := t.TempDir()
	put := func(name, data string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "witnessed")
	h := host.Start(t, Path(t), host.Options{Env: Env(host.Plugin(t), file)})
	do := func(command, ret string) {
		t.Helper()
		if a := h.Do(t, command); a.Ret != ret {
			t.Fatalf("%s: %+v, want %s", command, a, ret)
		}
	}
	one, two := put("one", event+"\x01"), put("two", event+"\x01"+event+"\x02")
	do(fmt.Sprintf("init a chain=test.example.com/a retention=7d bucket=dir:%s/bucket store_dir=%s/store signing_key=%s store_dir_limit_size=1 upload_timeout=1h",
		dir, dir, put("key.pem", string(key))), "OK")
	do("flush a some.tag "+two, "OK")
	do("flush a other.tag "+one, "RETRY") // store_dir is full
	do("exit a", "OK")
	do("flush - some.tag "+one, "RETRY") // no such instance
	h.End(t)

	got, cut, err := Read(file)
	if err != nil || cut > 0 {
		t.Fatalf("%d bytes cut, %v", cut, err)
	}
	for i := range got {
		got[i].Offset = 0
	}
	want := []Flush{{Ret: OK, Tag: "some.tag", Chunk: []byte(event + "\x01" + event + "\x02")}, {Ret: Retry, Tag: "other.tag", Chunk: []byte{}}, {Ret: Retry, Tag: "some.tag", Chunk: []byte{}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the witness has %+v, want %+v", got, want)
	}
}

// TestCutFrames cuts the file at every byte, and at every byte of a frame that others follow.
func TestCutFrames(t *testing.T) {
	frame := func(ret, tag, chunk string) string {
		return begins + ret + "\x00\x00\x00" + string(rune(len(tag))) + "\x00\x00\x00" + string(rune(len(chunk))) + strings.Repeat("\x00", 7) + tag + chunk + ends
	}
	a, b, c := frame("\x01", "a", "first"), frame("\x02", "b", ""), frame("\x01", "c", "last")
	path := filepath.Join(t.TempDir(), "witnessed")
	read := func(data string) (tags, chunks string, cut int) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		all, cut, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			tags += f.Tag
			chunks += string(f.Chunk)
			if f.Ret == OK && data[f.Offset:int(f.Offset)+len(f.Chunk)] != string(f.Chunk) {
				t.Errorf("%q: chunk %q is not at %d", data, f.Chunk, f.Offset)
			}
		}
		return tags, chunks, cut
	}
	if tags, chunks, cut := read(a + b + c); tags != "abc" || chunks != "firstlast" || cut != 0 {
		t.Fatalf("read %q, %q, %d bytes cut", tags, chunks, cut)
	}
	for n := range len(a) {
		if tags, chunks, cut := read(c + b + a[:n]); tags != "cb" || chunks != "last" || cut != n {
			t.Errorf("cut after %d bytes of the last: read %q, %q, %d bytes cut", n, tags, chunks, cut)
		}
		if tags, chunks, cut := read(a[:n] + b + c); tags != "bc" || chunks != "last" || cut != n {
			t.Errorf("cut after %d bytes of the first: read %q, %q, %d bytes cut", n, tags, chunks, cut)
		}
	}
	if all, _, err := Read(path + ".not"); len(all) > 0 || err != nil {
		t.Error(all, err)
	}
}
