package pubsub

import (
	"errors"
	"fmt"
	"strings"
)

// Code is an error code of Ably's public registry. Codes 40140 to 40149 mean "renew the
// token" to every SDK (RSA4b, RSC10) and are used for nothing else.
type Code int

// The codes that this server sends.
const (
	CodeBadRequest               Code = 40000
	CodeInvalidRequestBody       Code = 40001
	CodeInvalidParameterName     Code = 40002
	CodeInvalidParameterValue    Code = 40003
	CodeInvalidHeader            Code = 40004
	CodeInvalidCredential        Code = 40005
	CodeInvalidConnectionID      Code = 40006
	CodeMessageTooLarge          Code = 40009
	CodeInvalidChannelName       Code = 40010
	CodeInvalidEnumerationCursor Code = 40011
	CodeInvalidClientID          Code = 40012
	CodeInvalidMessageData       Code = 40013
	CodeInvalidMessageName       Code = 40016
	CodeUnsupportedVersion       Code = 40017
	CodeBatchPartlyFailed        Code = 40020
	CodePublishRefused           Code = 40030
	CodeInvalidMessageID         Code = 40031
	CodeInvalidExtras            Code = 40032
	CodeTooManyMessages          Code = 40034
	CodeForcedNack               Code = 40099
	CodeUnauthorized             Code = 40100
	CodeInvalidCredentials       Code = 40101
	CodeIncompatibleCredential   Code = 40102
	CodeBasicAuthWithoutTLS      Code = 40103
	CodeTimestampNotCurrent      Code = 40104
	CodeNonceReplayed            Code = 40105
	CodeConnectionLimit          Code = 40111
	CodeChannelLimit             Code = 40114
	CodeAppDisabled              Code = 40120
	CodeKeyUnknown               Code = 40130
	CodeKeyRevoked               Code = 40131
	CodeKeyExpired               Code = 40132
	CodeKeyMismatch              Code = 40133
	CodeTokenError               Code = 40140
	CodeTokenRevoked             Code = 40141
	CodeTokenExpired             Code = 40142
	CodeTokenUnknown             Code = 40143
	CodeInvalidJWT               Code = 40144
	CodeInvalidToken             Code = 40145
	CodeCapabilityDenied         Code = 40160
	CodeIdentifiedClientNeeded   Code = 40161
	CodeBasicAuthRequired        Code = 40162
	CodeTokensNotRevocable       Code = 40163
	CodeModeNotGranted           Code = 40165
	CodeOwnMessagesOnly          Code = 40166
	CodeClientTypeRequired       Code = 40167
	CodeForbidden                Code = 40300
	CodeTLSRequired              Code = 40311
	CodeNotFound                 Code = 40400
	CodeMethodNotAllowed         Code = 40500
	CodeRateLimited              Code = 42910
	CodeConnectionRateExceeded   Code = 42911
	CodeEnumerationRunning       Code = 42912
	CodeChannelMessageRate       Code = 42913
	CodeChannelByteRate          Code = 42914
	CodeRequestRate              Code = 42918
	CodeConnectionFlood          Code = 42921
	CodeAddressRate              Code = 42922
	CodeProtocolMessageFlood     Code = 42924
	CodeInternalError            Code = 50000
	CodeTimeout                  Code = 50003
	CodeBusy                     Code = 50004
	CodeUnavailable              Code = 50005
	CodeDisconnected             Code = 80003
	CodeConnectionExpired        Code = 80008
	CodeProtocolError            Code = 80013
	CodeConnectionSuperseded     Code = 80016
	CodeConnectionClosed         Code = 80017
	CodeInvalidConnectionKey     Code = 80018
	CodeContinuityLostByRate     Code = 80020
	CodeNewConnectionRate        Code = 80021
	CodeConnectionNotFound       Code = 80022
	CodeVersionRetired           Code = 80024
	CodeNotAttached              Code = 90001
	CodeMessagesExpired          Code = 90003
	CodeBacklogTooLong           Code = 90004
	CodeOtherSite                Code = 90005
	CodeAttachPointNotFound      Code = 90008
	CodeTooManyChannels          Code = 90010
	CodeChannelRateExceeded      Code = 90021
	CodePresenceNoClientID       Code = 91000
	CodeTooManyMembers           Code = 91003
	CodePresenceTooLarge         Code = 91006
	CodePresenceLost             Code = 91007
	CodeInvalidObject            Code = 92000
	CodeObjectsTooLarge          Code = 92001
	CodeObjectDeleted            Code = 92002
	CodeObjectUnreadable         Code = 92003
	CodeObjectNotFound           Code = 92004
	CodeObjectPathUnmatched      Code = 92005
	CodeObjectUnnamed            Code = 92006
	CodeObjectNotProcessable     Code = 92007
	CodeMutableRuleMissing       Code = 93002
)

// StatusCode is the HTTP status that goes with c, also sent as statusCode on the wire. SDKs
// try another host on 500 to 504, which therefore mean trouble that may pass (RSC15l3).
// Most codes carry it in their first three digits; the others are listed here.
func (c Code) StatusCode() int {
	switch c {
	case CodeMessageTooLarge:
		return 413
	case CodeConnectionLimit, CodeChannelLimit:
		return 403
	case CodeTimeout, CodeBusy, CodeUnavailable:
		return 503
	case CodeConnectionSuperseded, CodeConnectionNotFound:
		return 410
	case CodeNotAttached, CodeMessagesExpired, CodeBacklogTooLong, CodeOtherSite, CodeObjectNotFound:
		return 404
	case CodeNewConnectionRate, CodeChannelRateExceeded:
		return 429
	case CodePresenceLost:
		return 500
	}
	if n := int(c) / 100; n >= 400 && n < 600 {
		return n
	}
	return 400
}

// MayPass reports whether c means trouble of the server's that may be over at the next try
// (RSC15l3).
func (c Code) MayPass() bool { return c.StatusCode() >= 500 || c == CodeNewConnectionRate }

// Error is an error that a client may see. Message is safe to send; Err is for the log
// and never leaves the server.
type Error struct {
	Code       Code
	StatusCode int // HTTP status; NewError derives it from Code
	Message    string
	Err        error
}

// NewError returns an error with the status that belongs to code.
func NewError(code Code, message string) *Error {
	return &Error{Code: code, StatusCode: code.StatusCode(), Message: message}
}

// Errorf is NewError with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return NewError(code, fmt.Sprintf(format, args...))
}

// Because returns a copy of e that carries err for the log.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// WithStatus returns a copy of e whose HTTP status is status, for the few cases in which
// one code goes with two statuses.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.StatusCode = status
	return &c
}

// HeaderText is Message made fit for an HTTP header: one line of printable ASCII.
func (e *Error) HeaderText() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, e.Message)
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s (%d): %v", e.Message, e.Code, e.Err)
	}
	return fmt.Sprintf("%s (%d)", e.Message, e.Code)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrorFor returns what a client is told of err: the *Error in its chain, or
// CodeInternalError with no detail. It returns nil for nil.
func ErrorFor(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return NewError(CodeInternalError, "internal error").Because(err)
}

// IsTokenError reports whether SDKs answer code by renewing their token (RSA4b).
func (c Code) IsTokenError() bool { return c >= 40140 && c < 40150 }
