package fluentbit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// pollInterval is the pause between questions that Fluent Bit does not answer yet.
const pollInterval = 20 * time.Millisecond

// answerTimeout is how long one answer may take.
const answerTimeout = 5 * time.Second

// WaitReady waits until Fluent Bit runs: all its inputs listen, all its outputs are open, and its metrics are there.
func (p *Process) WaitReady(ctx context.Context) error {
	for {
		metrics, err := p.Metrics(ctx)
		if err == nil && len(metrics) > 0 {
			return nil
		}
		select {
		case <-time.After(pollInterval):
		case <-p.exited:
			return fmt.Errorf("fluent-bit ended with exit code %d while starting:\n%s", p.cmd.ProcessState.ExitCode(), p.Log())
		case <-ctx.Done():
			return fmt.Errorf("fluent-bit is not ready: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// Metrics asks for Fluent Bit's metrics. The keys are as Prometheus writes them: fluentbit_uptime{hostname="a"}.
func (p *Process) Metrics(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	url := fmt.Sprintf("http://127.0.0.1:%d/api/v2/metrics/prometheus", p.httpPort)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return parseMetrics(answer.Body)
}

// parseMetrics reads the lines of Prometheus's text format: name{label="value",...} number, and perhaps a time.
func parseMetrics(r io.Reader) (map[string]float64, error) {
	metrics := make(map[string]float64)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.LastIndexByte(line, '}') + 1
		if end == 0 {
			end = strings.IndexByte(line, ' ')
		}
		if end < 0 {
			return nil, fmt.Errorf("metrics line %q has no number", line)
		}
		number, _, _ := strings.Cut(strings.TrimSpace(line[end:]), " ")
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return nil, fmt.Errorf("metrics line %q: %w", line, err)
		}
		metrics[line[:end]] = value
	}
	return metrics, lines.Err()
}
