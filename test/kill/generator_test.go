package kill

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
)

// generator makes inference records of about 1 KB, of which no two are the same: so no two chunks are, and what is there twice
// was written twice. For one goroutine.
type generator struct {
	name     string
	rng      *rand.Rand
	records  int
	messages int
	last     string // id of the last record
}

func newGenerator(name string, rng *rand.Rand) *generator {
	return &generator{name: name, rng: rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))}
}

// events returns n records as msgpack.
func (g *generator) events(n int) (events []byte, err error) {
	noise := make([]byte, 300)
	for range n {
		for i := range noise {
			noise[i] = byte(g.rng.Uint32())
		}
		g.records++
		g.last = fmt.Sprintf("%s-%07d", g.name, g.records)
		events, err = fluentbit.AppendV1(events, fluentbit.Event{Time: time.Now(), Record: map[string]any{
			"request_id": g.last, "timestamp": "2026-11-23T07:25:01.5Z", "model_id": "llama-3.1-8b", "model_checksum": strings.Repeat("ab", 32),
			"input_hash": hex.EncodeToString(noise[:32]), "output_hash": hex.EncodeToString(noise[32:64]), "user_id": "u-1",
			"input_tokens": g.records, "output_tokens": 3, "latency_ms": 12.5, "status": 200, "response": hex.EncodeToString(noise[64:]),
			"source": map[string]any{"id": "gpu/" + g.name, "seq": g.records - 1},
		}})
		if err != nil {
			return nil, err
		}
	}
	return events, nil
}
