package recordtest

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// TimeLayout is how a record's timestamp is written.
const TimeLayout = "2006-01-02T15:04:05.000000Z07:00"

// fields calls visit with the members of r in order: a string, an int, a float64 or the source.
func (r *Record) fields(visit func(key string, value any)) {
	text := func(key, value string) {
		if value != "" {
			visit(key, value)
		}
	}
	count := func(key string, value int) {
		if value >= 0 {
			visit(key, value)
		}
	}
	text("request_id", r.RequestID)
	text("timestamp", r.Time.UTC().Format(TimeLayout))
	text("model_id", r.ModelID)
	text("model_checksum", r.ModelChecksum)
	text("input_hash", r.InputHash)
	text("output_hash", r.OutputHash)
	text("user_id", r.UserID)
	count("input_tokens", r.InputTokens)
	count("output_tokens", r.OutputTokens)
	if r.LatencyMS >= 0 {
		visit("latency_ms", r.LatencyMS)
	}
	count("status", r.Status)
	if r.SourceID != "" {
		visit("source", source{r.SourceID, r.SourceSeq})
	}
	text("prompt", r.Prompt)
	text("response", r.Response)
}

type source struct {
	ID  string `json:"id"`
	Seq uint64 `json:"seq"`
}

// AppendJSON appends r as a JSON object without a newline, as a middleware writes it into its file.
func (r *Record) AppendJSON(dst []byte) []byte {
	separator := byte('{')
	r.fields(func(key string, value any) {
		dst = append(dst, separator)
		separator = ','
		dst = append(strconv.AppendQuote(dst, key), ':')
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // of these types, nothing fails
		}
		dst = append(dst, text...)
	})
	return append(dst, '}')
}

// AppendMap appends r as a msgpack map.
func (r *Record) AppendMap(dst []byte) []byte {
	n := uint32(0)
	r.fields(func(string, any) { n++ })
	dst = msgp.AppendMapHeader(dst, n)
	r.fields(func(key string, value any) {
		dst = msgp.AppendString(dst, key)
		switch v := value.(type) {
		case string:
			dst = msgp.AppendString(dst, v)
		case int:
			dst = msgp.AppendInt(dst, v)
		case float64:
			dst = msgp.AppendFloat64(dst, v)
		case source:
			dst = msgp.AppendMapHeader(dst, 2)
			dst = msgp.AppendString(dst, "id")
			dst = msgp.AppendString(dst, v.ID)
			dst = msgp.AppendString(dst, "seq")
			dst = msgp.AppendUint64(dst, v.Seq)
		}
	})
	return dst
}

// AppendEvent appends r as Fluent Bit keeps it in a chunk: [[time,{}],{...}].
func (r *Record) AppendEvent(dst []byte) []byte {
	dst = append(dst, 0x92, 0x92)
	dst = AppendEventTime(dst, r.Time)
	dst = append(dst, 0x80)
	return r.AppendMap(dst)
}

// AppendEventV1 appends r as it comes from older forwarders: [time,{...}].
func (r *Record) AppendEventV1(dst []byte) []byte {
	dst = append(dst, 0x92)
	dst = AppendEventTime(dst, r.Time)
	return r.AppendMap(dst)
}

// AppendEventTime appends t as Fluent Bit's EventTime. t must be in 1970 to 2106.
func AppendEventTime(dst []byte, t time.Time) []byte {
	dst = append(dst, 0xd7, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(t.Unix()))
	return binary.BigEndian.AppendUint32(dst, uint32(t.Nanosecond()))
}

// Chunk makes the next n records and returns them as a chunk of events.
func (g *Generator) Chunk(n int) []byte {
	var chunk []byte
	for range n {
		r := g.Next()
		chunk = r.AppendEvent(chunk)
	}
	return chunk
}

// Lines makes the next n records and returns them as lines of JSON.
func (g *Generator) Lines(n int) []byte {
	var lines []byte
	for range n {
		r := g.Next()
		lines = append(r.AppendJSON(lines), '\n')
	}
	return lines
}

// Forward returns a message of the Forward protocol, in the PackedForward mode, that carries a chunk of n events. If ack
// is not empty, the receiver is to answer with [Ack] once it has the chunk.
func Forward(tag string, chunk []byte, n int, ack string) []byte {
	b := msgp.AppendArrayHeader(nil, 3)
	b = msgp.AppendString(b, tag)
	b = msgp.AppendBytes(b, chunk)
	if ack == "" {
		b = msgp.AppendMapHeader(b, 1)
	} else {
		b = msgp.AppendMapHeader(b, 2)
		b = msgp.AppendString(b, "chunk")
		b = msgp.AppendString(b, ack)
	}
	b = msgp.AppendString(b, "size")
	return msgp.AppendInt(b, n)
}

// Ack returns what the receiver of a message answers with.
func Ack(ack string) []byte {
	b := msgp.AppendMapHeader(nil, 1)
	b = msgp.AppendString(b, "ack")
	return msgp.AppendString(b, ack)
}
