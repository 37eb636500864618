package browser

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// browser is a headless Chromium, driven over WebDriver (W3C). What fails fails the test.
type browser struct {
	t       testing.TB
	session string // URL
	client  http.Client
}

// startBrowser starts chromedriver and through it Chromium, with further arguments. Both end with the test.
func startBrowser(t testing.TB, args ...string) *browser {
	chromium := needTool(t, "chromium")
	driver := needTool(t, "chromedriver")
	port := freePort(t)
	cmd := exec.Command(driver, fmt.Sprintf("--port=%d", port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the browser's processes are in the group, too
	// The browser must not reach anything, nor leave anything behind in a home directory.
	cmd.Env = append(os.Environ(), "http_proxy=", "https_proxy=", "HOME="+t.TempDir(), "TMPDIR="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, client: http.Client{Timeout: time.Minute}}
	t.Cleanup(func() {
		if b.session != "" {
			b.quit()
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what quit has ended is gone already
		_ = cmd.Wait()
	})
	root := fmt.Sprintf("http://127.0.0.1:%d", port)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := b.client.Get(root + "/status")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("chromedriver does not answer: %v", err)
		}
	}
	all := append([]string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-features=BackForwardCache,RenderDocument,ProactivelySwapBrowsingInstance", "--process-per-site", "--no-proxy-server", "--user-data-dir=" + t.TempDir(),
	}, args...)
	var created struct {
		SessionID string `json:"sessionId"`
	}
	b.call(http.MethodPost, root+"/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName":        "chrome",
		"goog:chromeOptions": map[string]any{"binary": chromium, "args": all},
	}}}, &created)
	b.session = root + "/session/" + created.SessionID
	return b
}

func (b *browser) quit() {
	request, err := http.NewRequest(http.MethodDelete, b.session, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if resp, err := b.client.Do(request); err == nil { // else it is gone
		resp.Body.Close()
	}
}

func needTool(t testing.TB, name string) string {
	servers.Programs(t, name)
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// call makes one WebDriver call and reads its value into out, if that is not nil.
func (b *browser) call(method, url string, in, out any) {
	b.t.Helper()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			b.t.Fatal(err)
		}
	}
	request, err := http.NewRequest(method, url, &body)
	if err != nil {
		b.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	resp, err := b.client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: %.500s", url, data)
	}
	answer := struct {
		Value any `json:"value"`
	}{out}
	if err := json.Unmarshal(data, &answer); err != nil {
		b.t.Fatalf("%s: %v in %.500s", url, err, data)
	}
}

// open goes to a URL and waits until it is loaded.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call(http.MethodPost, b.session+"/url", map[string]any{"url": url}, nil)
}

// run runs a script, whose last argument is the function to call with its result.
func (b *browser) run(script string, out any, args ...any) {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.call(http.MethodPost, b.session+"/execute/async", map[string]any{"script": script, "args": args}, out)
}

// devtools calls a command of Chromium's own protocol.
func (b *browser) devtools(command string, params map[string]any) {
	b.t.Helper()
	b.call(http.MethodPost, b.session+"/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, nil)
}

// typeInto types text as a person would.
func (b *browser) typeInto(selector, text string) {
	b.t.Helper()
	found := map[string]string{}
	b.call(http.MethodPost, b.session+"/element", map[string]any{"using": "css selector", "value": selector}, &found)
	for _, id := range found {
		b.call(http.MethodPost, b.session+"/element/"+id+"/clear", map[string]any{}, nil)
		b.call(http.MethodPost, b.session+"/element/"+id+"/value", map[string]any{"text": text}, nil)
	}
}

func (b *browser) bytesOf(method, path string, in any) []byte {
	b.t.Helper()
	var text string
	b.call(method, b.session+path, in, &text)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// pdf prints the page.
func (b *browser) pdf() []byte {
	b.t.Helper()
	return b.bytesOf(http.MethodPost, "/print", map[string]any{
		"page": map[string]any{"width": 21.0, "height": 29.7}, "margin": map[string]any{"top": 1.5, "bottom": 1.5, "left": 1.5, "right": 1.5},
	})
}

// screenshot is the page as PNG, of the given width in pixels and as high as it is.
func (b *browser) screenshot(width int) []byte {
	b.t.Helper()
	metrics := func(height int) {
		b.devtools("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
	}
	metrics(900)
	var height int
	b.run(`arguments[0](Math.ceil(document.documentElement.scrollHeight))`, &height)
	metrics(min(max(height, 300), 6000))
	defer b.devtools("Emulation.clearDeviceMetricsOverride", map[string]any{})
	return b.bytesOf(http.MethodGet, "/screenshot", nil)
}
