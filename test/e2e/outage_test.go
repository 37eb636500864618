package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/proxy"
)

// outage is a way in which the bucket is not what it should be for a while.
type outage struct {
	name  string
	store *store // nil: versitygw
	fault proxy.Fault
	// begin does it to the bucket itself, instead of a fault, and returns what takes it back.
	begin func(t *testing.T, c *courier) (end func())
	says  string // what a line of the log matches; "": it may say nothing
	works bool   // chunks get into the bucket all the same
	start string // what a start in the middle of it is refused with, as says; "": it goes on with what is in store_dir
	may   bool   // a start in the middle of it may be refused or not
}

func outages() []outage {
	puts := func(r *http.Request) bool { return r.Method == http.MethodPut }
	manifests := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	broken := `store cannot be reached: .*(reset by peer|broken pipe|closed)`
	changed := `something changes answers on their way`
	return []outage{
		{name: "nobody listens", fault: proxy.Fault{Kind: proxy.Refuse}, says: `store cannot be reached: .*connection refused`},
		{name: "nothing is heard for a while", fault: proxy.Fault{Kind: proxy.Silence}},
		{name: "500", fault: proxy.Fault{Kind: proxy.Answer, Status: 500, Code: "InternalError"}, says: `store cannot be reached: 500 InternalError`},
		{name: "503", fault: proxy.Fault{Kind: proxy.Answer, Status: 503, Code: "SlowDown"}, says: `store cannot be reached: 503 SlowDown`},
		{name: "503, MinIO", store: minioHTTP, fault: proxy.Fault{Kind: proxy.Answer, Status: 503, Code: "SlowDown"}, says: `store cannot be reached: 503 SlowDown`},
		{name: "503 to the commit only", fault: proxy.Fault{Kind: proxy.Answer, Status: 503, Code: "SlowDown", Only: func(r *http.Request) bool { return puts(r) && manifests(r) }},
			says: `committing manifest \d+: .*503 SlowDown`},
		{name: "403", fault: proxy.Fault{Kind: proxy.Answer, Status: 403, Code: "AccessDenied"}, says: `access denied: 403 AccessDenied`},
		{name: "clock off", fault: proxy.Fault{Kind: proxy.Answer, Status: 403, Code: "RequestTimeTooSkewed", Skew: 20 * time.Minute},
			says: `clock differs too much from the store's.*its clock is \+1[12]\d\d s from ours`},
		{name: "10 KB/s", fault: proxy.Fault{Kind: proxy.Bandwidth, Rate: 10_000}, works: true},
		{name: "10 KB/s with TLS", store: gatewayTLS, fault: proxy.Fault{Kind: proxy.Bandwidth, Rate: 10_000}, works: true},
		{name: "latency", fault: proxy.Fault{Kind: proxy.Latency, Delay: 300 * time.Millisecond}, works: true},
		{name: "resets in the middle of requests", fault: proxy.Fault{Kind: proxy.ResetRequest, After: 1000}, says: broken},
		{name: "resets in the middle of PUTs, MinIO", store: minioHTTP, fault: proxy.Fault{Kind: proxy.ResetRequest, After: 1000, Only: puts}, says: broken},
		{name: "resets with TLS", store: gatewayTLS, fault: proxy.Fault{Kind: proxy.ResetRequest, After: 4000}, says: broken},
		{name: "resets in the middle of answers", fault: proxy.Fault{Kind: proxy.ResetAnswer, After: 100}, says: broken},
		{name: "answers cut", fault: proxy.Fault{Kind: proxy.CutAnswer, After: 100}, says: `store cannot be reached: .*`},
		{name: "answers lost", fault: proxy.Fault{Kind: proxy.LoseAnswer}, says: broken},
		{name: "answers to PUTs lost", fault: proxy.Fault{Kind: proxy.LoseAnswer, Only: puts}, works: true},
		{name: "answers to PUTs lost, MinIO", store: minioHTTP, fault: proxy.Fault{Kind: proxy.LoseAnswer, Only: puts}, works: true},
		{name: "answers corrupt", fault: proxy.Fault{Kind: proxy.CorruptAnswer}, may: true},
		{name: "manifests corrupt on the way back", fault: proxy.Fault{Kind: proxy.CorruptAnswer, Only: manifests}, says: changed, start: changed},
		// A bundle names its key outside of what is signed.
		{name: "manifests corrupt where they are not signed", fault: proxy.Fault{Kind: proxy.CorruptAnswer, Only: manifests, After: hintOffset}, says: changed, may: true},
		{name: "PUTs corrupt", fault: proxy.Fault{Kind: proxy.CorruptRequest}, says: `body does not match its checksum`},
		{name: "PUTs corrupt, MinIO", store: minioHTTP, fault: proxy.Fault{Kind: proxy.CorruptRequest}, says: `body does not match its checksum`},
		{name: "bucket gone", begin: bucketGone, says: `no such bucket`, start: `bucket: .*no such bucket`},
		{name: "bucket made anew without lock", begin: bucketWithoutLock, says: `bucket has no (versioning|Object Lock)`, start: `bucket: .*bucket has no versioning`},
		{name: "bucket made anew, empty", begin: bucketEmpty, says: `has no manifest \d+ of chain .*is this the right bucket`, start: `has no manifest \d+ of chain`},
		{name: "lock configuration gone", begin: lockGone, says: `bucket has no Object Lock`, start: `bucket: .*bucket has no Object Lock`},
	}
}

// hintOffset is a byte of the name of the key in every manifest.
const hintOffset = int64(len(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"`))

// bucketDir is where versitygw keeps the current versions of a bucket's objects: all that there are.
func (l *auditLog) bucketDir() string { return filepath.Join(l.server.Dir, "data", l.bucket) }

// bucketGone takes the bucket away and brings it back.
func bucketGone(t *testing.T, c *courier) (end func()) {
	t.Helper()
	l := c.log
	away := filepath.Join(t.TempDir(), "bucket")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(l.bucketDir(), away)
	return func() {
		t.Helper()
		move(away, l.bucketDir())
	}
}

// bucketWithoutLock has another bucket in the bucket's place, which has neither versions nor locks.
func bucketWithoutLock(t *testing.T, c *courier) (end func()) {
	t.Helper()
	back := bucketGone(t, c)
	return anotherBucket(t, c, false, back)
}

// bucketEmpty has another bucket in the bucket's place, with everything but the chain.
func bucketEmpty(t *testing.T, c *courier) (end func()) {
	t.Helper()
	back := bucketGone(t, c)
	c.deliver(t, 1)
	c.awaitLine(t, "no such bucket") // a change that takes no time could not be seen
	return anotherBucket(t, c, true, back)
}

// anotherBucket makes a bucket in the place of one that was moved away.
func anotherBucket(t *testing.T, c *courier, lock bool, back func()) (end func()) {
	t.Helper()
	client := c.log.server.Client(t)
	if err := client.MakeBucket(t.Context(), c.log.bucket, minio.MakeBucketOptions{Region: c.log.server.Region, ObjectLocking: lock}); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		// A segment may be there: some stores find out that they cannot lock an object when they have it.
		for o := range client.ListObjectsIter(t.Context(), c.log.bucket, minio.ListObjectsOptions{Prefix: c.log.layout().Manifests()}) {
			t.Errorf("there is a manifest in another bucket: %s, %v", o.Key, o.Err)
		}
		if err := os.RemoveAll(c.log.bucketDir()); err != nil {
			t.Fatal(err)
		}
		back()
	}
}

// lockGone takes away what makes versitygw know that the bucket has Object Lock.
func lockGone(t *testing.T, c *courier) (end func()) {
	t.Helper()
	const name = "user.bucket-lock"
	dir := c.log.bucketDir()
	value := make([]byte, 4096)
	n, err := unix.Getxattr(dir, name, value)
	if err == nil {
		err = unix.Removexattr(dir, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := unix.Setxattr(dir, name, value[:n], 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOutages: chunks are taken during an outage as long as there is room; when it is over all are in the bucket, in order and
// once, without a restart, and with one in the middle of it.
func TestOutages(t *testing.T) {
	host.Start(t, host.Plugin(t), host.Options{}).End(t) // it is built before it is needed several times at once
	queue := make(chan outage)
	var running sync.WaitGroup
	for range outagesAtOnce {
		running.Go(func() {
			for o := range queue {
				t.Run(o.name, o.run)
			}
		})
	}
	for _, o := range outages() {
		queue <- o
	}
	close(queue)
	running.Wait()
}

// outagesAtOnce is more than there are processors: they mostly wait.
const outagesAtOnce = 6

func (o outage) run(t *testing.T) {
	if o.store == nil {
		o.store = gatewayHTTP
	}
	c := newCourier(t, newLog(t, o.store.open(t)))
	begin := func() (end func()) {
		t.Helper()
		if o.begin != nil {
			return o.begin(t, c)
		}
		c.proxy.Break(o.fault)
		return c.proxy.Mend
	}

	c.start(t)
	c.deliver(t, 1)
	c.log.waitFor(t, len(c.taken))
	end := begin()
	c.fill(t)
	if o.works {
		c.log.waitFor(t, len(c.taken))
	} else {
		c.awaitLine(t, o.says)
	}
	end()
	c.deliver(t, 2)
	c.log.waitFor(t, len(c.taken))

	end = begin()
	c.deliver(t, 2)
	if !o.works {
		c.awaitLine(t, o.says)
	}
	c.stop(t)
	if o.says != "" && !strings.Contains(c.host.Log(), "entries are not in the bucket yet") {
		t.Error("it had nothing left when it ended")
	}
	switch {
	case o.may:
		end()
		c.start(t)
	case o.start != "":
		c.refused(t, o.start)
		end()
		c.start(t)
	default:
		c.start(t)
		c.deliver(t, 1)
		end()
	}
	c.deliver(t, 1)
	c.log.waitFor(t, len(c.taken))
	c.stop(t)
	c.check(t)
	if o.works && len(c.complaints) > 0 {
		t.Errorf("it complained: %q", c.complaints)
	}
}

// TestFlappingNetwork: one thing breaks after the other, every time before what was begun has ended.
func TestFlappingNetwork(t *testing.T) {
	c := newCourier(t, newLog(t, gatewayHTTP.open(t)))
	c.start(t)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		f := proxy.Fault{
			Kind: proxy.Refuse + proxy.Kind(random.IntN(int(proxy.CorruptRequest))), After: random.Int64N(3000),
			Delay: 100 * time.Millisecond, Rate: 50_000, Status: 503, Code: "SlowDown",
		}
		if random.IntN(2) == 0 {
			f.Only = func(r *http.Request) bool { return r.Method == http.MethodPut }
		}
		c.proxy.Break(f)
		c.try(t)
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		if round%2 == 1 {
			c.proxy.Mend()
			c.try(t)
			time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		}
		if round%20 == 19 {
			c.proxy.Mend()
			c.stop(t)
			c.start(t)
		}
	}
	c.proxy.Mend()
	c.deliver(t, 1)
	c.log.waitFor(t, len(c.taken))
	c.stop(t)
	c.check(t)
}

// TestOutageMemory: what waits for the bucket waits on the disk.
func TestOutageMemory(t *testing.T) {
	c := newCourier(t, newLog(t, gatewayHTTP.open(t)))
	c.section = c.section.With("store_dir_limit_size", "1G").With("total_file_size", "2M")
	c.start(t)
	chunk := largeChunk(t)
	load := func(chunks int) {
		t.Helper()
		for range chunks {
			flush(t, c.host, chunk)
			if a := c.host.Next(t); a.Ret != "OK" {
				t.Fatalf("%+v", a)
			}
			c.host.Send(t, "sleep 20")
		}
	}
	load(50)
	c.log.waitFor(t, 50*largeRecords)
	before := c.host.RSS(t)
	c.proxy.Break(proxy.Fault{Kind: proxy.Answer, Status: 503, Code: "SlowDown"})
	load(outageChunks)
	after := c.host.RSS(t)
	c.awaitLine(t, "503 SlowDown")
	c.proxy.Mend()
	c.log.waitFor(t, (50+outageChunks)*largeRecords)
	caughtUp := c.host.RSS(t)
	c.stop(t)
	t.Logf("resident: %d KB before the outage, %d KB (%.2f times) after %d chunks in it, %d KB (%.2f times) when all are in the bucket",
		before>>10, after>>10, float64(after)/float64(before), outageChunks, caughtUp>>10, float64(caughtUp)/float64(before))
	for _, rss := range []int64{after, caughtUp} {
		if rss > before+before/2+30<<20 {
			t.Errorf("%d KB is more than was to be expected", rss>>10)
		}
	}
	c.log.verify(t)
}

// outageChunks come in the outage, about 80 MB: more than may be remembered.
const outageChunks = 250

// largeRecords is how many records are in a large chunk.
const largeRecords = 500

// largeChunk writes a chunk of about 300 KB.
func largeChunk(t *testing.T) (path string) {
	t.Helper()
	var events []byte
	for i := range largeRecords {
		var err error
		if events, err = fluentbit.AppendV2(events, fluentbit.Event{Time: time.Unix(1700000000, 0), Record: auditRecord(recordID("m", i), i)}); err != nil {
			t.Fatal(err)
		}
	}
	return file(t, string(events))
}

// courier delivers chunks to a plugin host that reaches its bucket through a proxy.
type courier struct {
	log     *auditLog
	proxy   *proxy.Proxy
	section fluentbit.Section
	host    *host.Host
	files   []chunkFile
	next    int
	taken   []sent // in the order in which they were acknowledged

	complaints []string // errors in the logs of hosts that have ended, but for that store_dir is full
	seen       int      // errors in the log of the one that runs, that were there before the outage
}

func newCourier(t *testing.T, l *auditLog) *courier {
	t.Helper()
	scheme, address, _ := strings.Cut(l.server.Endpoint, "://")
	p := proxy.Start(t, address)
	return &courier{
		log: l, proxy: p, files: chunkFiles(t, "o", 200),
		section: l.section().With("endpoint", scheme+"://"+p.Address()).With("store_dir_limit_size", "200K"),
	}
}

func (c *courier) start(t *testing.T) {
	t.Helper()
	c.host, c.seen = startHost(t, c.section), 0
}

// refused starts a host that must not begin.
func (c *courier) refused(t *testing.T, says string) {
	t.Helper()
	h := host.Start(t, host.Plugin(t), host.Options{})
	for _, key := range slices.Sorted(maps.Keys(c.section)) {
		h.Send(t, "set "+key+" "+c.section[key])
	}
	if a := h.Do(t, "init "+instance); a.Ret != "ERROR" {
		t.Errorf("it started: %+v", a)
	}
	h.End(t)
	if said := ourErrors(h.Log()); len(said) != 1 || !regexp.MustCompile(says).MatchString(said[0]) {
		t.Errorf("it said %q, want %s", said, says)
	}
}

// stop ends the host, as Fluent Bit does on SIGTERM.
func (c *courier) stop(t *testing.T) {
	t.Helper()
	c.complaints = append(c.complaints, c.errors()...)
	began := time.Now()
	c.host.End(t)
	if took := time.Since(began); took > exitTimeout {
		t.Errorf("it took %v to end", took)
	}
}

// exitTimeout is what whoever stops Fluent Bit gives its outputs, less what Fluent Bit itself needs.
const exitTimeout = 6 * time.Second

// errors are the lines of the host's log that complain of the bucket.
func (c *courier) errors() []string {
	return slices.DeleteFunc(ourErrors(c.host.Log()), func(line string) bool { return strings.HasPrefix(line, "chunk not taken") })
}

// try delivers the next chunk once.
func (c *courier) try(t *testing.T) (ret string) {
	t.Helper()
	if c.next == len(c.files) {
		t.Fatal("there are no more chunks")
	}
	flush(t, c.host, c.files[c.next].path)
	if ret = c.host.Next(t).Ret; ret == "OK" {
		c.taken = append(c.taken, c.files[c.next].records...)
		c.next++
	}
	return ret
}

// deliver delivers n chunks, as often as it takes.
func (c *courier) deliver(t *testing.T, n int) {
	t.Helper()
	for range n {
		eventually(t, "the chunk is taken", func() error {
			if ret := c.try(t); ret != "OK" {
				return fmt.Errorf("%s", ret)
			}
			return nil
		})
	}
}

// fill delivers chunks until there is no room for more.
func (c *courier) fill(t *testing.T) {
	t.Helper()
	from := c.next
	for c.try(t) == "OK" {
	}
	if n := c.next - from; n < 8 {
		t.Errorf("only %d chunks were taken", n)
	}
	eventually(t, "the log says so", func() error {
		if !strings.Contains(c.host.Log(), "store_dir is full") {
			return errNotYet
		}
		return nil
	})
}

// awaitLine waits until the log has two more errors, the last as says, and not many more. Where says is empty, it
// waits until the proxy has done something.
func (c *courier) awaitLine(t *testing.T, says string) {
	t.Helper()
	if says == "" {
		eventually(t, "requests are struck", func() error {
			if c.proxy.Hits() < 1 {
				return errNotYet
			}
			return nil
		})
		return
	}
	re := regexp.MustCompile(says)
	eventually(t, "the log says "+says, func() error {
		all := c.errors()[c.seen:]
		if len(all) < 2 || !re.MatchString(all[len(all)-1]) {
			return fmt.Errorf("it says %q", all)
		}
		c.seen += len(all)
		return nil
	})
}

// check compares the bucket with what was acknowledged.
func (c *courier) check(t *testing.T) {
	t.Helper()
	all := c.log.load(t)
	all.checkRecords(t, c.taken)
	all.checkCounts(t)
	var order, want []string
	for i := range all.entries {
		order = append(order, idOf(&all.entries[i]))
	}
	for _, s := range c.taken {
		want = append(want, s.id)
	}
	if !slices.Equal(order, want) {
		t.Error("the entries are not in the order in which they were acknowledged")
	}
	if n := len(all.events(chain.EventJournalLost)); n > 0 {
		t.Errorf("the chain says %d times that a journal was lost", n)
	}
	c.log.verify(t)
}
