package kill

import (
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// store is the S3 server, which loses nothing that it has acknowledged: it is killed, its machine is not.
type store struct {
	server  *servers.Server
	kills   int
	restart chan error // gives one error, or nil, when the server answers again; nil: it was not killed
}

func startStore(t *testing.T, program string) *store {
	t.Helper()
	start := servers.Versitygw
	if program == "minio" {
		start = servers.MinIO
	}
	s := &store{server: start(t)}
	t.Cleanup(func() { s.join(t) }) // before the server's own
	return s
}

// kill kills the server, which must be there, and has it started again after so long.
func (s *store) kill(away time.Duration) {
	s.kills++
	s.server.Kill()
	s.restart = make(chan error, 1)
	go func() {
		time.Sleep(away)
		s.restart <- s.server.Restart()
	}()
}

// join waits until the server is there.
func (s *store) join(t *testing.T) {
	t.Helper()
	if s.restart == nil {
		return
	}
	if err := <-s.restart; err != nil {
		t.Fatal(err)
	}
	s.restart = nil
}

// outages counts the kills; it is negative while the server is away.
func (s *store) outages() int {
	if s.restart != nil && len(s.restart) == 0 {
		return -1
	}
	return s.kills
}
