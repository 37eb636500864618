// Package recordtest makes up inference records for tests, benchmarks and demonstrations: realistic, complete, and the
// same for the same [Config] on every machine, as JSON lines, as chunks of msgpack events and as messages of the
// Forward protocol.
package recordtest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"time"
)

// Config says what records to make. The zero value makes records of about half a kilobyte, without text.
type Config struct {
	Seed uint64 // other seeds make other records

	Start time.Time     // of the first record; zero: 2026-11-23T07:25:01Z
	Step  time.Duration // from one record to the next; zero: 1.000001 ms

	SourceID string // zero: "gpu-1/" and a UUID that depends on the seed
	FirstSeq uint64 // the first record's number at its source

	Text  int  // bytes of prompt and response together, about; 0: records have neither
	World bool // the text is in Polish, Japanese and English by turns, with emoji; else in English

	// Incomplete makes every nth record lack one or two audit fields; 0: none does.
	Incomplete int
}

// Generator makes one record after the other.
type Generator struct {
	cfg  Config
	rng  *rand.Rand
	n    uint64
	text []byte
}

// New returns a generator that has made no record yet.
func New(cfg Config) *Generator {
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2026, 11, 23, 7, 25, 1, 0, time.UTC)
	}
	if cfg.Step == 0 {
		cfg.Step = time.Millisecond + time.Nanosecond
	}
	g := &Generator{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x617564697463686e))}
	if cfg.SourceID == "" {
		g.cfg.SourceID = "gpu-1/" + g.uuid()
	}
	return g
}

// Record is one inference record. A field that is empty, or negative, is left out where the record is written.
type Record struct {
	Time time.Time // of the event; the record's own timestamp says the same

	RequestID, ModelID, ModelChecksum, InputHash, OutputHash, UserID string

	InputTokens, OutputTokens int
	LatencyMS                 float64
	Status                    int

	SourceID  string
	SourceSeq uint64

	Prompt, Response string
}

var models = []struct{ id, checksum string }{
	{"llama-3-8b-instruct-v2.1", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
	{"mistral-large-2", "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"},
	{"qwen3-32b-v1.0", "fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13"},
}

// Next makes the next record.
func (g *Generator) Next() Record {
	model := models[g.rng.IntN(len(models))]
	r := Record{
		Time:          g.cfg.Start.Add(time.Duration(g.n) * g.cfg.Step).UTC(),
		RequestID:     g.uuid(),
		ModelID:       model.id,
		ModelChecksum: model.checksum,
		UserID:        "key-" + digits(g.rng.IntN(5000), 5),
		InputTokens:   20 + g.rng.IntN(4000),
		OutputTokens:  1 + g.rng.IntN(1000),
		LatencyMS:     float64(20_000+g.rng.IntN(3_000_000)) / 1000,
		Status:        200,
		SourceID:      g.cfg.SourceID,
		SourceSeq:     g.cfg.FirstSeq + g.n,
	}
	if g.rng.IntN(50) == 0 {
		r.Status = []int{400, 429, 500, 503}[g.rng.IntN(4)]
	}
	if g.cfg.Text > 0 {
		r.Prompt = g.prose(g.cfg.Text * 3 / 5)
		r.Response = g.prose(g.cfg.Text - len(r.Prompt))
		r.InputHash, r.OutputHash = sum(r.Prompt), sum(r.Response)
	} else {
		r.InputHash, r.OutputHash = g.hex(32), g.hex(32)
	}
	g.n++
	if g.cfg.Incomplete > 0 && g.n%uint64(g.cfg.Incomplete) == 0 {
		r.ModelChecksum = ""
		if g.rng.IntN(2) == 0 {
			r.UserID = ""
		}
	}
	return r
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// hex returns n random bytes in hex.
func (g *Generator) hex(n int) string {
	var raw []byte
	for len(raw) < n {
		raw = binary.BigEndian.AppendUint64(raw, g.rng.Uint64())
	}
	return hex.EncodeToString(raw[:n])
}

func (g *Generator) uuid() string {
	s := []byte(g.hex(16))
	s[12], s[16] = '4', "89ab"[g.rng.IntN(4)]
	return string(s[:8]) + "-" + string(s[8:12]) + "-" + string(s[12:16]) + "-" + string(s[16:20]) + "-" + string(s[20:])
}

// digits returns n with leading zeros.
func digits(n, width int) string {
	b := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return string(b)
}

// prose returns text of n to n+50 bytes: sentences, line ends, now and then something quoted.
func (g *Generator) prose(n int) string {
	words := english
	if g.cfg.World {
		words = [][]string{polish, japanese, english}[g.rng.IntN(3)]
	}
	b := g.text[:0]
	for left := 0; len(b) < n; left-- {
		if left == 0 {
			if len(b) > 0 {
				b = append(b[:len(b)-1], ".\n"...)
			}
			left = 6 + g.rng.IntN(14)
		}
		word := words[g.rng.IntN(len(words))]
		switch g.rng.IntN(40) {
		case 0:
			b = append(b, '"')
			b = append(b, word...)
			b = append(b, `" `...)
		case 1:
			b = append(b, digits(g.rng.IntN(100000), 5)...)
			b = append(b, ' ')
		default:
			b = append(b, word...)
			b = append(b, ' ')
		}
	}
	g.text = b
	return string(b)
}

var english = []string{
	"a", "about", "account", "agreed", "and", "bank", "card", "charged", "complaint", "customer", "please", "summarise",
	"the", "transaction", "was", "twice", "refund", "policy", "formal", "tone", "in", "of", "to", "for", "risk", "model",
	"months", "late", "payment", "respond", "regulator", "output", "eight", "fee", "on", "with", "statement", "it's",
}

var polish = []string{
	"proszę", "o", "zwrot", "środków", "za", "podwójną", "opłatę", "z", "zeszłego", "tygodnia", "klient", "złożył",
	"reklamację", "dotyczącą", "płatności", "kartą", "w", "sklepie", "internetowym", "odpowiedź", "powinna", "być",
	"uprzejma", "i", "zwięzła", "bank", "umowa", "jaźń", "gęślą", "że", "—",
}

var japanese = []string{
	"お客様", "の", "口座", "に", "二重", "請求", "が", "ありました", "。", "返金", "を", "お願いします", "要約", "してください", "規約", "リスク", "モデル", "😀", "支払い", "遅延", "、",
}
