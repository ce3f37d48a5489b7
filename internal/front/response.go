package front

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"letshare-server/internal/socket"
)

const (
	// answerTime is for how long an answer is written.
	answerTime = 10 * time.Second

	// lingerTime and lingerBytes bound what is read of a client whose answer is on its way:
	// closing while bytes are unread would take the answer back.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// response is the answer to a request that was served here. It is kept until the handler returns,
// unless the handler takes the connection over.
type response struct {
	conn   *socket.Begun
	header http.Header
	status int
	body   bytes.Buffer
	taken  bool
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// Take implements socket.Taker.
func (w *response) Take() (net.Conn, error) {
	w.taken = true
	return w.conn, nil
}

// send writes the answer and closes the connection.
func (w *response) send() {
	defer w.conn.Close()
	w.WriteHeader(http.StatusOK)
	if w.header.Get("Content-Type") == "" && w.body.Len() > 0 {
		w.header.Set("Content-Type", http.DetectContentType(w.body.Bytes()))
	}
	w.header.Set("Content-Length", strconv.Itoa(w.body.Len()))
	w.header.Set("Connection", "close")
	w.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(w.status) + " " + http.StatusText(w.status) + "\r\n")
	_ = w.header.Write(&b) // a Buffer does not fail
	b.WriteString("\r\n")
	_, _ = w.body.WriteTo(&b)
	if w.conn.SetDeadline(time.Now().Add(answerTime)) != nil {
		return
	}
	if _, err := b.WriteTo(w.conn); err != nil || w.conn.CloseWrite() != nil {
		return
	}
	if w.conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, w.conn, lingerBytes) // its end is what counts
	}
}
