package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Errors of the AMF0 reader.
var (
	ErrAMFShort  = errors.New("AMF0 value is cut short")
	ErrAMFDepth  = errors.New("AMF0 value is nested too deeply")
	ErrAMFMarker = errors.New("AMF0 marker is not known")
)

// maxDepth bounds recursion: clients nest two or three levels, hostile ones a
// million.
const maxDepth = 16

// The markers of AMF0 (AMF 0 specification, section 2.1).
const (
	markerNumber      = 0x00
	markerBoolean     = 0x01
	markerString      = 0x02
	markerObject      = 0x03
	markerNull        = 0x05
	markerUndefined   = 0x06
	markerReference   = 0x07
	markerECMAArray   = 0x08
	markerObjectEnd   = 0x09
	markerStrictArray = 0x0a
	markerDate        = 0x0b
	markerLongString  = 0x0c
	markerUnsupported = 0x0d
	markerXML         = 0x0f
	markerTypedObject = 0x10
	markerAVMPlus     = 0x11
)

// The AMF0 values that have no Go type of their own. Numbers are float64,
// booleans bool, strings string, null is nil.
type (
	// Undefined is AMF0's undefined.
	Undefined struct{}
	// Unsupported stands for what a peer could not put into AMF0.
	Unsupported struct{}
	// Reference is an object that came before, by its number in the message.
	Reference uint16
	// Property is one named value of an object.
	Property struct {
		Name  string
		Value any
	}
	// Object is an anonymous or, with a Class, typed object, in its own order.
	Object struct {
		Class string
		Props []Property
	}
	// ECMAArray is an object with the array's marker.
	ECMAArray []Property
	// StrictArray is a list without names.
	StrictArray []any
	// Date is milliseconds since 1970 with a time zone that nobody uses.
	Date struct {
		Millis float64
		Zone   int16
	}
	// XML is an XML document, kept as text.
	XML string
	// Raw is the rest of a message that switched to AMF3: it is passed on as it
	// came, since AMF3 cannot be skipped without reading all of it.
	Raw []byte
)

// Get returns the value of a property, nil when there is none.
func (o Object) Get(name string) any {
	for _, p := range o.Props {
		if p.Name == name {
			return p.Value
		}
	}
	return nil
}

// Text returns a string property, empty when there is none.
func (o Object) Text(name string) string {
	s, _ := o.Get(name).(string)
	return s
}

// Set replaces a property or appends it.
func (o *Object) Set(name string, value any) {
	for i := range o.Props {
		if o.Props[i].Name == name {
			o.Props[i].Value = value
			return
		}
	}
	o.Props = append(o.Props, Property{name, value})
}

// DecodeAMF0 reads all values in b. It copies what it keeps and allocates no
// more than a small multiple of len(b).
func DecodeAMF0(b []byte) ([]any, error) {
	r := amfReader{b: b}
	var values []any
	for len(r.b) > 0 {
		v, err := r.value(0)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

type amfReader struct{ b []byte }

func (r *amfReader) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.b) {
		return nil, ErrAMFShort
	}
	head := r.b[:n]
	r.b = r.b[n:]
	return head, nil
}

func (r *amfReader) number() (float64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
}

func (r *amfReader) length(size int) (int, error) {
	b, err := r.take(size)
	if err != nil {
		return 0, err
	}
	if size == 2 {
		return int(binary.BigEndian.Uint16(b)), nil
	}
	return int(binary.BigEndian.Uint32(b)), nil
}

func (r *amfReader) text(size int) (string, error) {
	n, err := r.length(size)
	if err != nil {
		return "", err
	}
	b, err := r.take(n)
	return string(b), err
}

func (r *amfReader) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, ErrAMFDepth
	}
	marker, err := r.take(1)
	if err != nil {
		return nil, err
	}
	switch marker[0] {
	case markerNumber:
		return r.number()
	case markerBoolean:
		b, err := r.take(1)
		return err == nil && b[0] != 0, err
	case markerString:
		return r.text(2)
	case markerLongString:
		return r.text(4)
	case markerXML:
		s, err := r.text(4)
		return XML(s), err
	case markerNull:
		return nil, nil //nolint:nilnil // null is a value
	case markerUndefined:
		return Undefined{}, nil
	case markerUnsupported:
		return Unsupported{}, nil
	case markerReference:
		n, err := r.length(2)
		return Reference(n), err
	case markerAVMPlus:
		rest := Raw(append([]byte{markerAVMPlus}, r.b...))
		r.b = nil
		return rest, nil
	default:
		return r.compound(marker[0], depth)
	}
}

func (r *amfReader) compound(marker byte, depth int) (any, error) {
	switch marker {
	case markerObject:
		props, err := r.properties(depth)
		return Object{Props: props}, err
	case markerTypedObject:
		class, err := r.text(2)
		if err != nil {
			return nil, err
		}
		props, err := r.properties(depth)
		return Object{Class: class, Props: props}, err
	case markerECMAArray:
		if _, err := r.length(4); err != nil { // a hint that many get wrong
			return nil, err
		}
		props, err := r.properties(depth)
		return ECMAArray(props), err
	case markerStrictArray:
		return r.strictArray(depth)
	case markerDate:
		millis, err := r.number()
		if err != nil {
			return nil, err
		}
		zone, err := r.length(2)
		return Date{millis, int16(uint16(zone))}, err
	default:
		return nil, fmt.Errorf("%w: 0x%02x", ErrAMFMarker, marker)
	}
}

func (r *amfReader) properties(depth int) ([]Property, error) {
	var props []Property
	for {
		name, err := r.text(2)
		if err != nil {
			return nil, err
		}
		if name == "" && len(r.b) > 0 && r.b[0] == markerObjectEnd {
			r.b = r.b[1:]
			return props, nil
		}
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		props = append(props, Property{name, v})
	}
}

func (r *amfReader) strictArray(depth int) (StrictArray, error) {
	n, err := r.length(4)
	if err != nil {
		return nil, err
	}
	if n > len(r.b) {
		return nil, ErrAMFShort // each value takes a byte at least
	}
	var list StrictArray
	for range n {
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// AppendAMF0 appends values to b. It takes the types that [DecodeAMF0] returns,
// and int as a number; others are written as undefined.
func AppendAMF0(b []byte, values ...any) []byte {
	for _, v := range values {
		b = appendValue(b, v)
	}
	return b
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, markerNull)
	case float64:
		return binary.BigEndian.AppendUint64(append(b, markerNumber), math.Float64bits(v))
	case int:
		return appendValue(b, float64(v))
	case bool:
		if v {
			return append(b, markerBoolean, 1)
		}
		return append(b, markerBoolean, 0)
	case string:
		if len(v) > math.MaxUint16 {
			return appendLong(append(b, markerLongString), v)
		}
		return appendText(append(b, markerString), v)
	case XML:
		return appendLong(append(b, markerXML), string(v))
	case Object:
		if v.Class != "" {
			return appendProperties(appendText(append(b, markerTypedObject), v.Class), v.Props)
		}
		return appendProperties(append(b, markerObject), v.Props)
	case ECMAArray:
		return appendProperties(binary.BigEndian.AppendUint32(append(b, markerECMAArray), uint32(len(v))), v)
	case StrictArray:
		b = binary.BigEndian.AppendUint32(append(b, markerStrictArray), uint32(len(v)))
		return AppendAMF0(b, v...)
	case Date:
		b = binary.BigEndian.AppendUint64(append(b, markerDate), math.Float64bits(v.Millis))
		return binary.BigEndian.AppendUint16(b, uint16(v.Zone))
	case Raw:
		return append(b, v...)
	case Reference:
		return binary.BigEndian.AppendUint16(append(b, markerReference), uint16(v))
	case Unsupported:
		return append(b, markerUnsupported)
	default:
		return append(b, markerUndefined)
	}
}

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), math.MaxUint16)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendLong(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func appendProperties(b []byte, props []Property) []byte {
	for _, p := range props {
		b = appendValue(appendText(b, p.Name), p.Value)
	}
	return append(b, 0, 0, markerObjectEnd)
}
