package record

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
)

// maxQuarantine is how many raw bytes one quarantine entry carries at most.
const maxQuarantine = 32 << 20

// quarantine writes the chunk's bytes from start to end as they are, with the reason why: in one entry, or as many as
// it takes.
func (b *Batch) quarantine(start, end int, why fault) {
	parts := (end - start + maxQuarantine - 1) / maxQuarantine
	for part := 1; part <= parts; part++ {
		data := b.dec.src[start:min(start+maxQuarantine, end)]
		sum := sha256.Sum256(data)
		dst := append(b.Bodies, `"event":"quarantine","detail":{"reason":"`...)
		dst = append(dst, reasons[why]...)
		dst = append(dst, `","offset":`...)
		dst = strconv.AppendInt(dst, int64(start), 10)
		dst = append(dst, `,"size":`...)
		dst = strconv.AppendInt(dst, int64(len(data)), 10)
		dst = append(dst, `,"sha256":"`...)
		dst = hex.AppendEncode(dst, sum[:])
		if parts > 1 {
			dst = append(dst, `","part":`...)
			dst = strconv.AppendInt(dst, int64(part), 10)
			dst = append(dst, `,"parts":`...)
			dst = strconv.AppendInt(dst, int64(parts), 10)
			dst = append(dst, `,"data":"`...)
		} else {
			dst = append(dst, `","data":"`...)
		}
		dst = base64.StdEncoding.AppendEncode(dst, data)
		b.Bodies = append(dst, `"}}`...)
		b.entry(Entry{Kind: Quarantine})
		b.reasons[why]++
		start += len(data)
	}
}
