package httpstream

import (
	"bufio"
	"io"
	"sync"
)

const (
	copySize = 32 << 10 // bytes passed on at a time
	// maxLine bounds a line of a playlist: far above real ones, and all that a
	// playlist takes of memory besides what is written.
	maxLine      = 64 << 10 // bytes
	playlistSize = 32 << 10 // bytes: most playlists fit and get a Content-Length
)

// pools keep the buffers of requests that are over.
type pools struct{ copies, readers, writers sync.Pool }

func (p *pools) buffer() *[]byte {
	if b, ok := p.copies.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, copySize)
	return &b
}

func (p *pools) putBuffer(b *[]byte) { p.copies.Put(b) }

func (p *pools) lines(from io.Reader) *bufio.Reader {
	if b, ok := p.readers.Get().(*bufio.Reader); ok {
		b.Reset(from)
		return b
	}
	return bufio.NewReaderSize(from, maxLine)
}

func (p *pools) putLines(b *bufio.Reader) {
	b.Reset(nil)
	p.readers.Put(b)
}

func (p *pools) writer(to io.Writer) *bufio.Writer {
	if b, ok := p.writers.Get().(*bufio.Writer); ok {
		b.Reset(to)
		return b
	}
	return bufio.NewWriterSize(to, playlistSize)
}

func (p *pools) putWriter(b *bufio.Writer) {
	b.Reset(nil)
	p.writers.Put(b)
}
