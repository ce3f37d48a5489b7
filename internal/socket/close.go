package socket

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Close codes (RFC 6455, 7.4.1).
const (
	CloseNormal          = 1000
	CloseGoingAway       = 1001
	CloseProtocolError   = 1002
	CloseUnsupportedData = 1003
	CloseNoStatus        = 1005 // never sent: a close frame without a code
	CloseAbnormal        = 1006 // never sent: no close frame came
	CloseInvalidPayload  = 1007
	ClosePolicyViolation = 1008
	CloseTooBig          = 1009
	CloseInternalError   = 1011
	CloseServiceRestart  = 1012
	CloseTryAgainLater   = 1013
)

// CloseError is a breach of the protocol, or a close frame, as a code and a reason.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("websocket: close %d", e.Code)
	}
	return fmt.Sprintf("websocket: close %d: %s", e.Code, e.Reason)
}

func protocolError(reason string) *CloseError {
	return &CloseError{Code: CloseProtocolError, Reason: reason}
}

// ValidCloseCode reports whether code may stand in a close frame.
func ValidCloseCode(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}

// ParseClose reads a close frame's payload. No payload is CloseNoStatus. The error is a
// *CloseError: 1002 for half a code or one that may not be sent, 1007 for a reason that is no UTF-8.
func ParseClose(payload []byte) (code int, reason string, err error) {
	switch len(payload) {
	case 0:
		return CloseNoStatus, "", nil
	case 1:
		return 0, "", protocolError("close payload of one byte")
	}
	code = int(binary.BigEndian.Uint16(payload))
	if !ValidCloseCode(code) {
		return 0, "", protocolError("close code that may not be sent")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, "", &CloseError{Code: CloseInvalidPayload, Reason: "close reason is not UTF-8"}
	}
	return code, string(payload[2:]), nil
}

// AppendClose appends a server's close frame. A reason that does not fit is cut after a whole
// character; a code that may not be sent (CloseNoStatus) gives a frame without payload.
func AppendClose(dst []byte, code int, reason string) []byte {
	var buf [MaxControlBytes]byte
	return AppendFrame(dst, OpClose, closePayload(buf[:0], code, reason))
}

func closePayload(dst []byte, code int, reason string) []byte {
	if !ValidCloseCode(code) {
		return dst
	}
	if n := MaxControlBytes - 2; len(reason) > n {
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}
