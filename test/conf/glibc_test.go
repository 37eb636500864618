package conf

import (
	"debug/elf"
	"strconv"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/host"
)

// newestGlibc is the youngest glibc, 2.x, that the plugin may ask for: that of RHEL 9 and Amazon Linux 2023, older than
// those of Ubuntu 22.04, Debian 12 and Fluent Bit's image. It is what a build on any newer system comes down to, since
// 2.34 took pthreads into libc and later releases changed none of the functions that Go calls.
const newestGlibc = 34

func TestPluginLoadsOnOldSystems(t *testing.T) {
	f, err := elf.Open(host.Plugin(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range libraries {
		// Before 2.34 these were libraries of their own.
		if name != "libc.so.6" && name != "libpthread.so.0" && name != "libdl.so.2" && name != "libresolv.so.2" {
			t.Errorf("needs %s", name)
		}
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, s := range symbols {
		version, ok := strings.CutPrefix(s.Version, "GLIBC_2.")
		if !ok {
			continue
		}
		seen++
		minor, _, _ := strings.Cut(version, ".")
		if n, err := strconv.Atoi(minor); err != nil || n > newestGlibc {
			t.Errorf("%s needs %s, newer than 2.%d", s.Name, s.Version, newestGlibc)
		}
	}
	if seen == 0 {
		t.Error("no versions of glibc in it")
	}
}
