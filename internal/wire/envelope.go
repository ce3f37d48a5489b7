package wire

import (
	"maps"
	"slices"
	"strings"
)

// AppendEnvelope appends an answer as a document: its status, its headers under lower-case names,
// and its body, which is in the same format; null if there is none. A header that occurs several
// times is an array.
func AppendEnvelope(dst []byte, f Format, status int, header map[string][]string, body []byte) []byte {
	w := writer{b: dst, format: f}
	envelope := w.object()
	w.key("statusCode")
	w.int(int64(status))
	w.key("response")
	if len(body) > 0 {
		w.b = append(w.b, body...)
	} else {
		w.null()
	}
	w.key("headers")
	headers := w.object()
	for _, name := range slices.Sorted(maps.Keys(header)) {
		values := header[name]
		w.anyKey([]byte(strings.ToLower(name)))
		if len(values) == 1 {
			w.str(values[0])
			continue
		}
		array := w.arrayOf(len(values))
		for _, v := range values {
			w.elem()
			w.str(v)
		}
		w.endArray(array)
	}
	w.endObject(headers)
	w.endObject(envelope)
	return w.b
}
