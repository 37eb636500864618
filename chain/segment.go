package chain

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// FrameSize is how many bytes of lines a frame is filled up to. Smaller frames make single records cheaper to fetch,
	// larger ones compress better: 1 MiB is about 3 % from one frame for everything.
	FrameSize = 1 << 20
	// maxFrame is the most that a frame may hold: a frame of a single long line.
	maxFrame = MaxLine + 1
	// maxSegment is the most that a segment may hold, before or after compression.
	maxSegment = 8 << 30
)

// Level is how hard a segment is compressed.
type Level = zstd.EncoderLevel

// The levels, from the fastest to the smallest.
const (
	LevelFastest = zstd.SpeedFastest
	LevelDefault = zstd.SpeedDefault
	LevelBetter  = zstd.SpeedBetterCompression
	LevelBest    = zstd.SpeedBestCompression
)

// ParseLevel reads a compression level by its name: fastest, default, better or best.
func ParseLevel(name string) (Level, error) {
	ok, level := zstd.EncoderLevelFromString(name)
	if !ok {
		return 0, fmt.Errorf("compression level %q is not fastest, default, better or best", name)
	}
	return level, nil
}

// SegmentWriter compresses entry lines into the independent zstd frames (RFC 8878, content checksum on, no skippable
// frames) of a segment, and keeps the books that its manifest wants.
type SegmentWriter struct {
	w       io.Writer
	enc     Compressor
	raw     []byte // lines of the frame being filled
	out     []byte
	entries uint64
	segment Segment
	rawSum  hash.Hash
	sum     hash.Hash
	md5     hash.Hash
}

// Compressor makes zstd frames.
type Compressor interface {
	// AppendFrame appends to dst one frame (RFC 8878), with a content checksum, of all of src.
	AppendFrame(dst, src []byte) ([]byte, error)
}

// NewCompressor returns a compressor in Go. It takes about 10 MiB and no goroutines of its own.
func NewCompressor(level Level) (Compressor, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true), zstd.WithWindowSize(FrameSize))
	if err != nil {
		return nil, err
	}
	return goCompressor{enc}, nil
}

type goCompressor struct{ enc *zstd.Encoder }

func (c goCompressor) AppendFrame(dst, src []byte) ([]byte, error) {
	return c.enc.EncodeAll(src, dst), nil
}

// NewSegmentWriter returns a writer of a segment to w.
func NewSegmentWriter(w io.Writer, c Compressor) *SegmentWriter {
	return &SegmentWriter{w: w, enc: c, rawSum: sha256.New(), sum: sha256.New(), md5: md5.New()}
}

// Write adds one or more whole lines, each ending in its newline.
func (s *SegmentWriter) Write(lines []byte) (int, error) {
	total := len(lines)
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		if n == 0 {
			return total - len(lines), errors.New("segment: a line without its newline")
		}
		if len(s.raw) > 0 && len(s.raw)+n > FrameSize {
			if err := s.flush(); err != nil {
				return total - len(lines), err
			}
		}
		s.raw = append(s.raw, lines[:n]...)
		s.entries++
		lines = lines[n:]
	}
	return total, nil
}

func (s *SegmentWriter) flush() error {
	var err error
	if s.out, err = s.enc.AppendFrame(s.out[:0], s.raw); err != nil {
		return err
	}
	s.rawSum.Write(s.raw)
	s.sum.Write(s.out)
	s.md5.Write(s.out)
	s.segment.Frames = append(s.segment.Frames, Frame{
		Size: int64(len(s.out)), RawSize: int64(len(s.raw)), Entries: s.entries, SHA256: Sum(s.out),
	})
	s.segment.Size += int64(len(s.out))
	s.segment.RawSize += int64(len(s.raw))
	s.raw, s.entries = s.raw[:0], 0
	_, err = s.w.Write(s.out)
	return err
}

// Close writes what is left and returns the segment's description, without key and version id, and the MD5 of the
// object, which S3 takes as a further check of what was sent. It does not close the underlying writer.
func (s *SegmentWriter) Close() (Segment, [md5.Size]byte, error) {
	if len(s.raw) > 0 {
		if err := s.flush(); err != nil {
			return Segment{}, [md5.Size]byte{}, err
		}
	}
	s.segment.SHA256 = Hash(s.sum.Sum(nil))
	s.segment.RawSHA256 = Hash(s.rawSum.Sum(nil))
	return s.segment, [md5.Size]byte(s.md5.Sum(nil)), nil
}

// SegmentReader reads the lines of a segment by its frame table: never more than one frame of it is held, and nothing
// is decompressed whose hash and size were not announced.
type SegmentReader struct {
	r       *bufio.Reader
	dec     *zstd.Decoder
	segment *Segment
	next    int // index of the next frame
	packed  []byte
	raw     []byte
	sum     hash.Hash
	rawSum  hash.Hash
}

// NewSegmentReader returns a reader of the object r that segment describes.
func NewSegmentReader(r io.Reader, segment *Segment) (*SegmentReader, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*maxFrame),
		zstd.WithDecodeAllCapLimit(true)) // not a byte more than the frame table announces
	if err != nil {
		return nil, err
	}
	return &SegmentReader{r: bufio.NewReaderSize(r, 64<<10), dec: dec, segment: segment, sum: sha256.New(), rawSum: sha256.New()}, nil
}

// Frame returns the lines of the next frame, valid until the next call, or io.EOF after the last one, when the hashes of
// the whole object have been checked too.
func (s *SegmentReader) Frame() ([]byte, error) {
	if s.next == len(s.segment.Frames) {
		if _, err := s.r.ReadByte(); err != io.EOF {
			if err == nil {
				err = errors.New("segment is longer than its manifest says")
			}
			return nil, err
		}
		if Hash(s.sum.Sum(nil)) != s.segment.SHA256 {
			return nil, errors.New("segment does not have the SHA-256 that its manifest says")
		}
		if Hash(s.rawSum.Sum(nil)) != s.segment.RawSHA256 {
			return nil, errors.New("segment's lines do not have the SHA-256 that its manifest says")
		}
		return nil, io.EOF
	}
	f := &s.segment.Frames[s.next]
	s.packed = grow(s.packed, f.Size)
	if _, err := io.ReadFull(s.r, s.packed); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = errors.New("segment is shorter than its manifest says")
		}
		return nil, fmt.Errorf("frame %d: %w", s.next, err)
	}
	lines, err := f.open(s.dec, s.packed, s.raw)
	if err != nil {
		return nil, fmt.Errorf("frame %d: %w", s.next, err)
	}
	s.raw = lines
	s.sum.Write(s.packed)
	s.rawSum.Write(lines)
	s.next++
	return lines, nil
}

// Close frees the decoder.
func (s *SegmentReader) Close() { s.dec.Close() }

// open checks a frame's bytes and decompresses them into buf.
func (f *Frame) open(dec *zstd.Decoder, packed, buf []byte) ([]byte, error) {
	if Sum(packed) != f.SHA256 {
		return nil, errors.New("it does not have the SHA-256 that its manifest says")
	}
	lines, err := dec.DecodeAll(packed, grow(buf, f.RawSize)[:0])
	if err != nil {
		return nil, err
	}
	if int64(len(lines)) != f.RawSize {
		return nil, fmt.Errorf("it holds %d bytes, its manifest says %d", len(lines), f.RawSize)
	}
	if lines[len(lines)-1] != '\n' {
		return nil, errors.New("it does not end with a line")
	}
	if n := bytes.Count(lines, []byte{'\n'}); uint64(n) != f.Entries {
		return nil, fmt.Errorf("it holds %d entries, its manifest says %d", n, f.Entries)
	}
	return lines, nil
}

// grow returns a slice of length n, buf's memory if that is enough.
func grow(buf []byte, n int64) []byte {
	if int64(cap(buf)) < n {
		return make([]byte, n)
	}
	return buf[:n]
}
