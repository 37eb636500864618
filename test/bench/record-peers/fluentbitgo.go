// Package peers compares package record with other ways from msgpack to JSON: run
//
//	go test -bench . -benchmem
//
// in this directory. It is a module of its own so that what it compares with is no dependency of auditchain.
package peers

import (
	"unsafe"

	"github.com/fluent/fluent-bit-go/output"
)

// records calls visit with each record of the chunk, as fluent-bit-go decodes it, and returns how many there were.
func records(chunk []byte, visit func(map[any]any) error) int {
	decoder := output.NewDecoder(unsafe.Pointer(&chunk[0]), len(chunk))
	for n := 0; ; n++ {
		ret, _, record := output.GetRecord(decoder)
		if ret != 0 {
			return n
		}
		if err := visit(record); err != nil {
			return -1
		}
	}
}
