// Out_auditchain is the shared object that Fluent Bit loads as the output plugin auditchain. It is built with
// -buildmode=c-shared, and holds nothing but the seam between Fluent Bit and package ingest: Fluent Bit's callbacks
// (this file), its configuration, logger and metrics (host.go, metrics.go, bridge.c), and the instances that are open.
//
// Fluent Bit runs one FLBPluginInit per [OUTPUT] section, on its engine's thread; FLBPluginFlushCtx on the threads of
// the instance's workers, on coroutines with small stacks; and FLBPluginExitCtx when the workers of the instance have
// ended. With hot reload the new instances come in the same process after the old ones have exited.
//
// No panic leaves an exported function: it would take Fluent Bit, and every other output, down.
package main

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include <string.h>
#include "bridge.h"
*/
import "C"

import (
	"os"
	"runtime/debug"
	"unsafe"
)

// version is set by the linker: -X main.version=...
var version = "dev"

func main() {} // never called: buildmode c-shared wants it

// loadedBy is the process that started Go's runtime.
var loadedBy = os.Getpid()

func init() {
	// The heap is small and lives next to Fluent Bit's own memory: rather collect more often than let it double.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// FLBPluginRegister tells Fluent Bit what this is.
//
//export FLBPluginRegister
func FLBPluginRegister(def *C.struct_flb_plugin_proxy_def) (ret C.int) {
	defer onPanic(nobody.logger, "registering", func() { ret = -1 })
	def._type = C.FLB_PROXY_OUTPUT_PLUGIN
	def.proxy = C.FLB_PROXY_GOLANG
	def.flags = 0
	def.name = C.CString(pluginName)
	def.description = C.CString("Tamper-evident, write-once audit log in an S3 bucket with Object Lock")
	return 0
}

// FLBPluginUnregister frees what FLBPluginRegister made.
//
//export FLBPluginUnregister
func FLBPluginUnregister(def *C.struct_flb_plugin_proxy_def) {
	defer onPanic(nobody.logger, "unregistering", func() {})
	C.free(unsafe.Pointer(def.name))
	C.free(unsafe.Pointer(def.description))
	def.name, def.description = nil, nil
}

// FLBPluginInit opens an instance. FLB_ERROR stops Fluent Bit.
//
//export FLBPluginInit
func FLBPluginInit(plugin *C.struct_flbgo_output_plugin) (ret C.int) {
	h := openHost(plugin)
	l := newLogger(h)
	defer func() {
		if ret != C.FLB_OK {
			l.detach() // Fluent Bit frees the instance
		}
	}()
	defer onPanic(l, "starting", func() { ret = C.FLB_ERROR })
	if os.Getpid() != loadedBy {
		l.Error("Fluent Bit was told to go to the background after it had loaded this plugin, and Go does not survive that: " +
			"leave out -d and daemon, and let systemd or the container run it")
		return C.FLB_ERROR
	}
	i, err := open(h.property, l)
	if err != nil {
		l.Error(err.Error())
		return C.FLB_ERROR
	}
	defer func() {
		if ret != C.FLB_OK { // a panic
			i.close()
		}
	}()
	defer onPanic(l, "starting", func() { ret = C.FLB_ERROR })
	i.metrics = startMetrics(h, l, i.log.Stats)
	plugin.context.remote_context = C.uintptr_t(instances.add(i))
	return C.FLB_OK
}

// FLBPluginFlushCtx appends a chunk. It returns FLB_OK once the chunk is durable, otherwise FLB_RETRY, never
// FLB_ERROR: Fluent Bit would throw the chunk away. Fluent Bit owns data and tag again when it returns.
//
//export FLBPluginFlushCtx
func FLBPluginFlushCtx(ctx C.uintptr_t, data unsafe.Pointer, size C.size_t, tag *C.char) (ret C.int) {
	i := instances.get(uintptr(ctx))
	defer onPanic(i.logger, "taking a chunk", func() { ret = C.FLB_RETRY })
	if err := i.append(bytesOf(unsafe.Pointer(tag), C.strlen(tag)), bytesOf(data, size)); err != nil {
		return C.FLB_RETRY
	}
	return C.FLB_OK
}

// bytesOf is size bytes of C's memory, not copied.
func bytesOf(p unsafe.Pointer, size C.size_t) []byte {
	if p == nil {
		return nil
	}
	return unsafe.Slice((*byte)(p), int(size))
}

// FLBPluginExitCtx closes an instance. The context is 0 for an instance that was never started, because another one
// failed before its turn came.
//
//export FLBPluginExitCtx
func FLBPluginExitCtx(ctx C.uintptr_t) C.int {
	i := instances.remove(uintptr(ctx))
	defer onPanic(i.logger, "closing", func() {})
	i.close()
	return C.FLB_OK
}
