package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/auditchain/auditchain/test/gpu"
)

// connections take turns; each call has its time, whether the one before it on its connection has ended or not, and
// is late by what that took too long.
const connections = 32

// summary is what one block says.
type summary struct{ median, p99, cpu float64 } // ms

// block calls the server at the rate for a time.
func block(s *gpu.Stub, length time.Duration) (summary, error) {
	n := int(length.Seconds() * float64(*rate))
	took := make([]time.Duration, n)
	request := request()
	before, err := processorTime(s)
	if err != nil {
		return summary{}, err
	}
	var group sync.WaitGroup
	failed := make([]error, connections)
	begin := time.Now().Add(100 * time.Millisecond)
	for c := range connections {
		group.Go(func() {
			failed[c] = func() error {
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
				if err != nil {
					return err
				}
				defer conn.Close()
				answers := bufio.NewReader(conn)
				for i := c; i < n; i += connections {
					intended := begin.Add(time.Duration(i) * time.Second / time.Duration(*rate))
					time.Sleep(time.Until(intended))
					if err := call(conn, answers, request); err != nil {
						return err
					}
					took[i] = time.Since(intended)
				}
				return nil
			}()
		})
	}
	group.Wait()
	if err := errors.Join(failed...); err != nil {
		return summary{}, err
	}
	after, err := processorTime(s)
	if err != nil {
		return summary{}, err
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return summary{ms(took[n/2]), ms(took[n*99/100]), ms(after-before) / float64(n)}, nil
}

// request is a prompt of about 1 KB, for an answer of about as much.
func request() []byte {
	body := fmt.Sprintf(`{"model":%q,"max_tokens":150,"messages":[{"role":"user","content":%q}]}`, gpu.Model, strings.Repeat("tokens ", 150))
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func call(conn net.Conn, answers *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// clockTick is the unit of times in /proc, on all that Linux runs on.
const clockTick = 10 * time.Millisecond

// processorTime is what the server's processes have used so far, all their threads.
func processorTime(s *gpu.Stub) (time.Duration, error) {
	pids, err := s.Pids()
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// Behind the name, which may hold anything: the 12th and 13th are user and system time.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
			}
			total += time.Duration(ticks) * clockTick
		}
	}
	return total, nil
}

func list(text string) []string { return strings.Split(text, ",") }
