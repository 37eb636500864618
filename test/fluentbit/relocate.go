package fluentbit

import (
	"path/filepath"
	"strings"
)

// Relocate puts the files of a configuration that we ship below dir, and the plugin where it is built.
func Relocate(text, dir, plugin string) string {
	return strings.NewReplacer(
		"/usr/lib/auditchain/out_auditchain.so", plugin,
		"/etc/auditchain", filepath.Join(dir, "etc"),
		"/var/lib/auditchain", filepath.Join(dir, "var"),
	).Replace(text)
}
