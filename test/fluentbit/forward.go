package fluentbit

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// Event is a record on its way to Fluent Bit.
type Event struct {
	Time   time.Time
	Meta   map[string]any // metadata, for the v2 form only
	Record any            // map[string]any with what msgpack knows, or msgp.Raw
}

// AppendV1 appends the event in the form [time, record], as Fluentd and old releases of Fluent Bit send it.
func AppendV1(dst []byte, e Event) ([]byte, error) {
	dst = msgp.AppendArrayHeader(dst, 2)
	dst = appendTime(dst, e.Time)
	return msgp.AppendIntf(dst, e.Record)
}

// AppendV2 appends the event in the form [[time, metadata], record].
func AppendV2(dst []byte, e Event) ([]byte, error) {
	dst = msgp.AppendArrayHeader(dst, 2)
	dst = msgp.AppendArrayHeader(dst, 2)
	dst = appendTime(dst, e.Time)
	dst, err := msgp.AppendMapStrIntf(dst, e.Meta)
	if err != nil {
		return dst, err
	}
	return msgp.AppendIntf(dst, e.Record)
}

// appendTime appends Fluentd's EventTime: extension type 0, seconds and nanoseconds in 32 bits each.
func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, 0xd7, 0x00)
	dst = binary.BigEndian.AppendUint32(dst, uint32(t.Unix()))
	return binary.BigEndian.AppendUint32(dst, uint32(t.Nanosecond()))
}

// Chunk is what is sent at once.
type Chunk struct {
	Tag    string
	Events []byte // the events, one after the other
	Count  int    // how many they are
	Packed bool   // send them as one binary value, as Fluent Bit does (PackedForward), not as an array (Forward)
	ID     string // ask for an acknowledgement with this id; "": ask for none
}

// message is the chunk as the forward protocol, version 1, has it: [tag, events, options].
func (c *Chunk) message() []byte {
	m := msgp.AppendArrayHeader(nil, 3)
	m = msgp.AppendString(m, c.Tag)
	if c.Packed {
		m = msgp.AppendBytes(m, c.Events)
	} else {
		m = msgp.AppendArrayHeader(m, uint32(c.Count))
		m = append(m, c.Events...)
	}
	if c.ID == "" {
		m = msgp.AppendMapHeader(m, 1)
	} else {
		m = msgp.AppendMapHeader(m, 2)
		m = msgp.AppendString(m, "chunk")
		m = msgp.AppendString(m, c.ID)
	}
	m = msgp.AppendString(m, "size")
	return msgp.AppendInt(m, c.Count)
}

// Forwarder is a connection to a forward input. It is for one goroutine.
type Forwarder struct {
	conn    net.Conn
	answers *msgp.Reader
}

// Dial connects to a forward input.
func Dial(ctx context.Context, address string) (*Forwarder, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Forwarder{conn, msgp.NewReader(bufio.NewReader(conn))}, nil
}

// Send sends a chunk and, if it has an ID, waits for its acknowledgement: Fluent Bit then has it in its buffer. After an
// error it is not known whether it has, and the connection is of no more use.
func (f *Forwarder) Send(ctx context.Context, c Chunk) error {
	stop := context.AfterFunc(ctx, func() { f.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := f.conn.Write(c.message()); err != nil {
		return fmt.Errorf("sending chunk %q: %w", c.ID, err)
	}
	if c.ID == "" {
		return nil
	}
	answer := make(map[string]any)
	if err := f.answers.ReadMapStrIntf(answer); err != nil {
		return fmt.Errorf("waiting for the acknowledgement of chunk %q: %w", c.ID, err)
	}
	if answer["ack"] != c.ID {
		return fmt.Errorf("chunk %q was answered by %v", c.ID, answer)
	}
	return nil
}

// Close closes the connection.
func (f *Forwarder) Close() error { return f.conn.Close() }
