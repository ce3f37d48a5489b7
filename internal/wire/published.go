package wire

// AppendPublished appends the body that answers a REST publish: the channel, the id of the
// first message, and a serial for each. An empty serial is written as null.
func AppendPublished(dst []byte, f Format, channel, messageID string, serials []string) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("channel")
	w.str(channel)
	w.key("messageId")
	w.str(messageID)
	w.key("serials")
	array := w.arrayOf(len(serials))
	for _, serial := range serials {
		w.elem()
		if serial == "" {
			w.null()
		} else {
			w.str(serial)
		}
	}
	w.endArray(array)
	w.endObject(object)
	return w.b
}

// AppendVersionSerial appends the body that answers a change of a message: the serial of the
// version that it made (UDR2a). An empty one is written as null.
func AppendVersionSerial(dst []byte, f Format, serial string) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("versionSerial")
	if serial == "" {
		w.null()
	} else {
		w.str(serial)
	}
	w.endObject(object)
	return w.b
}
