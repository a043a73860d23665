package index

import (
	"encoding/binary"
	"slices"
	"sync/atomic"

	"srsx/fsm"
)

const (
	pageWords = 1 << 13 // 64 KB
	wordBytes = 8
	maxWords  = wordName + fsm.MaxPart/wordBytes // of one item
)

// words is memory in pages for items of some words. One goroutine takes and
// stores; others may load anything at any time, and get what was stored there
// last, whatever it is.
type words struct {
	pages atomic.Pointer[[]*[pageWords]atomic.Uint64]
	free  [maxWords + 1][]uint32 // addresses of items of so many words, to be used again
	used  uint32                 // of the last page
}

func wordsOf(bytes int) uint32 { return uint32((bytes + wordBytes - 1) / wordBytes) }

func (w *words) at(address uint32) *atomic.Uint64 {
	return &(*w.pages.Load())[address/pageWords][address%pageWords]
}

func (w *words) load(address uint32) uint64     { return w.at(address).Load() }
func (w *words) store(address uint32, v uint64) { w.at(address).Store(v) }

// take returns the address of n words.
func (w *words) take(n uint32) uint32 {
	if last := len(w.free[n]) - 1; last >= 0 {
		at := w.free[n][last]
		w.free[n] = w.free[n][:last]
		return at
	}
	var pages []*[pageWords]atomic.Uint64
	if p := w.pages.Load(); p != nil {
		pages = *p
	}
	if len(pages) == 0 || w.used+n > pageWords {
		if rest := pageWords - w.used; len(pages) > 0 && rest > 0 {
			w.giveBack(uint32(len(pages))*pageWords-rest, rest)
		}
		pages = append(slices.Clone(pages), new([pageWords]atomic.Uint64))
		w.pages.Store(&pages)
		w.used = 0
	}
	at := uint32(len(pages)-1)*pageWords + w.used
	w.used += n
	return at
}

// giveBack frees n words.
func (w *words) giveBack(at, n uint32) { w.free[n] = append(w.free[n], at) }

// wordOf returns the first eight bytes of text, padded with zeros.
func wordOf(text string) uint64 {
	if len(text) >= wordBytes {
		return uint64(text[0]) | uint64(text[1])<<8 | uint64(text[2])<<16 | uint64(text[3])<<24 |
			uint64(text[4])<<32 | uint64(text[5])<<40 | uint64(text[6])<<48 | uint64(text[7])<<56
	}
	var v uint64
	for i := range len(text) {
		v |= uint64(text[i]) << (8 * i)
	}
	return v
}

func (w *words) storeText(at uint32, text string) {
	for ; text != ""; at++ {
		w.store(at, wordOf(text))
		text = text[min(wordBytes, len(text)):]
	}
}

// holdText reports whether the words at an address are those of text.
func (w *words) holdText(at uint32, text string) bool {
	for ; text != ""; at++ {
		if w.load(at) != wordOf(text) {
			return false
		}
		text = text[min(wordBytes, len(text)):]
	}
	return true
}

// text returns the text of so many bytes at an address.
func (w *words) text(at uint32, size int) string {
	b := make([]byte, 0, size+wordBytes)
	for ; len(b) < size; at++ {
		b = binary.LittleEndian.AppendUint64(b, w.load(at))
	}
	return string(b[:size])
}
