//go:build !linux

package load

import (
	"context"
	"errors"
	"io"
)

var errPlatform = errors.New("the load tool needs Linux (epoll, /proc)")

func runScenario(context.Context, *options, *Report, io.Writer) error { return errPlatform }

func serveBaseline(io.Writer, int, int, bool) error { return errPlatform }
