package main

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import "unsafe"

const pluginName = "auditchain"

// host is Fluent Bit as one instance sees it.
type host struct {
	c    C.struct_host
	name string // the instance's alias or name
}

func openHost(plugin *C.struct_flbgo_output_plugin) *host {
	h := &host{c: C.host_open(plugin), name: pluginName}
	if name := C.host_name(&h.c); name != nil {
		h.name = C.GoString(name)
	}
	return h
}

// property returns the value of a key in the instance's section, "" if it is not there.
func (h *host) property(key string) string {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	return C.GoString(C.host_property(&h.c, k))
}

// enabled says whether messages of the level are wanted.
func (h *host) enabled(level level) bool {
	return C.host_enabled(&h.c, C.int(level)) != 0
}

// print logs the line, which holds no zero byte. It returns false if Fluent Bit has no function for it.
func (h *host) print(level level, line string) bool {
	if C.host_can_print(&h.c) == 0 {
		return false
	}
	s := C.CString(line)
	defer C.free(unsafe.Pointer(s))
	C.host_print(&h.c, C.int(level), s)
	return true
}
