package wire

import "letshare-server/internal/pubsub"

// ErrorInfo is an error as a client sees it (TI1). Code, StatusCode and Message are always
// written, because js throws without them.
type ErrorInfo struct {
	Code       int
	StatusCode int
	Message    string
	Href       string
	Cause      *ErrorInfo
	ServerID   string
	Detail     map[string]string
}

// NewErrorInfo returns what a client is told of e. It leaves out e.Err, which is for the log,
// and returns nil for nil.
func NewErrorInfo(e *pubsub.Error) *ErrorInfo {
	if e == nil {
		return nil
	}
	status := e.StatusCode
	if status == 0 {
		status = e.Code.StatusCode()
	}
	return &ErrorInfo{Code: int(e.Code), StatusCode: status, Message: e.Message}
}
