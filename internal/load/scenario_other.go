//go:build !linux

package load

import (
	"context"
	"errors"
	"io"
)

var errPlatform = errors.New("the load tool needs Linux (epoll, /proc)")

func runScenario(context.Context, *options, *Report, io.Writer) error { return errPlatform }

func runBench(_ context.Context, o *options, doc *document, text, _ io.Writer) []*Report {
	return unsupported(o, doc, text)
}

func runCluster(_ context.Context, o *options, doc *document, text io.Writer) []*Report {
	return unsupported(o, doc, text)
}

func unsupported(o *options, doc *document, text io.Writer) []*Report {
	r := &Report{Scenario: o.scenario}
	r.problem("%v", errPlatform)
	r.write(text)
	doc.Runs = append(doc.Runs, r)
	return doc.Runs
}

func serveBaseline(io.Writer, int, int, bool) error { return errPlatform }

func serveFloor(io.Reader, io.Writer) error { return errPlatform }
