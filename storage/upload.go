package storage

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// upload is the body of a PUT that has all the time it needs as long as it gets on, however slow the line: no deadline could
// tell a slow upload from one that hangs.
type upload struct {
	io.ReadSeeker
	read   atomic.Int64 // bytes that the connection was given
	steps  atomic.Int64 // a connection was made, the answer has begun
	conn   atomic.Pointer[net.Conn]
	cancel context.CancelCauseFunc
}

// startUpload returns body as an upload and a context for its request, which ends with context.DeadlineExceeded when nothing has
// moved for the timeout: no byte was taken by the other side, and no answer began. The caller calls stop.
func startUpload(ctx context.Context, body io.ReadSeeker, timeout time.Duration) (_ context.Context, _ *upload, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	u := &upload{ReadSeeker: body, cancel: cancel}
	step := func() { u.steps.Add(1) }
	go u.watch(ctx, timeout)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone:          func(string, string, error) { step() },
		GotConn:              func(i httptrace.GotConnInfo) { u.conn.Store(&i.Conn); step() },
		GotFirstResponseByte: step,
	}), u, func() { cancel(nil) }
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadSeeker.Read(p)
	u.read.Add(int64(n))
	return n, err
}

// watch ends the request when it has stood still for the timeout.
func (u *upload) watch(ctx context.Context, timeout time.Duration) {
	defer func() {
		if r := recover(); r != nil {
			u.cancel(fmt.Errorf("internal error: %v", r))
		}
	}()
	tick := time.NewTicker(max(timeout/16, time.Millisecond))
	defer tick.Stop()
	type place struct {
		read, steps int64
		queued      int
	}
	var last place
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			at := place{u.read.Load(), u.steps.Load(), u.queued()}
			if at != last {
				last, since = at, now
			} else if now.Sub(since) >= timeout {
				u.cancel(context.DeadlineExceeded)
				return
			}
		}
	}
}

// queued is how many of the bytes that the connection was given the other side has not acknowledged, where the system can
// tell. Megabytes can wait there, and minutes on a slow line, after the last one was read from the body.
func (u *upload) queued() int {
	conn := u.conn.Load()
	if conn == nil {
		return 0
	}
	inner := *conn
	if t, ok := inner.(*tls.Conn); ok {
		inner = t.NetConn()
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		return sendQueue(tcp)
	}
	return 0
}
