//go:build !linux

package load

import (
	"context"
	"errors"
	"io"
)

var errPlatform = errors.New("the load tool needs Linux (epoll, /proc)")

func runScenario(context.Context, *options, *Report, io.Writer) error { return errPlatform }

func runBench(_ context.Context, _ *options, doc *document, text, _ io.Writer) []*Report {
	r := &Report{Scenario: "bench"}
	r.problem("%v", errPlatform)
	r.write(text)
	doc.Runs = append(doc.Runs, r)
	return doc.Runs
}

func serveBaseline(io.Writer, int, int, bool) error { return errPlatform }

func serveFloor(io.Reader, io.Writer) error { return errPlatform }
