// Package record reads chunks of Fluent Bit, strictly, and writes what is in them as the bodies of entry lines.
//
// Nothing that comes in is dropped: what is not an event becomes a quarantine entry that carries the bytes. docs/FORMAT.md
// has the rules by which msgpack becomes JSON and chunks become entries, in its sections 3 and 4.
//
// This is the hot path of the writer: one pass over the bytes, no allocation per record once the buffers have grown,
// and no length or count in the input is trusted before that many bytes have been seen.
package record
