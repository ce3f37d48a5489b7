package rest

import (
	"encoding/json"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

// stats answers GET /stats (RSC6a): intervals of one unit (RSC6b4), in pages.
func (a *API) stats(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	if err := mayReadStats(grant); err != nil {
		return nil, err
	}
	version, err := c.version()
	if err != nil {
		return nil, err
	}
	return a.statsOf(c, grant.App, version)
}

// AppStats answers a request for the statistics of an app as GET /stats would, in JSON and in the
// newest form, without asking who may read them.
func (a *API) AppStats(r *http.Request, app string) (body []byte, links []string, err error) {
	c := newCall(r)
	c.format = wire.JSON
	ans, err := a.statsOf(c, app, flatStatsVersion)
	if err != nil {
		return nil, nil, err
	}
	return ans.body, ans.links, nil
}

func (a *API) statsOf(c *call, app string, version int) (*answer, error) {
	q, err := statsParams(c)
	if err != nil {
		return nil, err
	}
	page, err := a.opts.Stats.Read(c.Context(), app, q)
	if err != nil {
		return nil, pubsub.NewError(pubsub.CodeUnavailable, "the statistics cannot be read; try again").Because(err)
	}
	next := ""
	if page.More {
		next = page.Items[len(page.Items)-1].Interval.String()
	}
	text := []byte{'['}
	for i := range page.Items {
		if i > 0 {
			text = append(text, ',')
		}
		item := &page.Items[i]
		if version < flatStatsVersion {
			text, err = appendNestedStats(text, item)
		} else {
			text, err = appendStats(text, app, item)
		}
		if err != nil {
			return nil, err
		}
	}
	body, err := wire.Transcode(nil, c.format, wire.JSON, append(text, ']'))
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: body, links: pageLinks("stats", c.query, next)}, nil
}

func mayReadStats(grant *auth.Grant) error {
	if !grant.Allows(auth.OpStats, "*") {
		return pubsub.NewError(pubsub.CodeCapabilityDenied, "statistics need the operation stats on every channel")
	}
	return nil
}

// flatStatsVersion is the version from which on statistics are a list of entries.
const flatStatsVersion = 3

// statsParams reads which intervals are wanted (RSC6b1-4).
func statsParams(c *call) (q stats.Query, err error) {
	if q.Limit, err = limitParam(c.query); err != nil {
		return q, err
	}
	if q.Forwards, err = forwardsParam(c.query); err != nil {
		return q, err
	}
	unit := c.query.Get("unit")
	if unit == "" {
		unit = c.query.Get("by") // as some clients call it
	}
	if unit != "" { // otherwise minute (RSC6b4)
		var ok bool
		if q.Unit, ok = stats.ParseUnit(unit); !ok {
			return q, invalidParam("Invalid unit param: must be minute, hour, day or month")
		}
	}
	var start, end stats.Interval
	if q.Start, start, err = statsBound(c, "start"); err != nil {
		return q, err
	}
	if q.End, end, err = statsBound(c, "end"); err != nil {
		return q, err
	}
	if end != (stats.Interval{}) {
		q.End = end.End().Add(-1) // all of it
	}
	if start != (stats.Interval{}) {
		q.Start = start.Start()
	}
	if !q.End.IsZero() && q.Start.After(q.End) {
		return q, invalidParam("Invalid start param: start is after end")
	}
	if cursor := c.query.Get("cursor"); cursor != "" {
		if q.After, err = stats.ParseInterval(cursor); err != nil || q.After.Unit != q.Unit {
			return q, invalidParam("Invalid cursor param")
		}
	}
	return q, nil
}

// maxTime is the end of the year 9999 in ms since the epoch.
const maxTime = 253402300799999

// statsBound reads a bound in ms, or as an interval id.
func statsBound(c *call, name string) (at time.Time, interval stats.Interval, err error) {
	s := c.query.Get(name)
	if s == "" {
		return at, interval, nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		if ms < 0 || ms > maxTime {
			return at, interval, invalidParam("Invalid " + name + " param: must be milliseconds since the epoch")
		}
		return time.UnixMilli(ms).UTC(), interval, nil
	}
	if interval, err = stats.ParseInterval(s); err != nil {
		return at, interval, invalidParam("Invalid " + name + " param: must be milliseconds since the epoch or an interval id")
	}
	return at, interval, nil
}

// statsSchema names the form of the entries (TS12s).
const statsSchema = "https://schemas.ably.com/json/app-stats-0.0.5.json"

// appendStats appends an item as JSON, in the form for versions from 3 on: what was counted
// is a flat list of entries (TS12r, TS12t).
func appendStats(dst []byte, app string, item *stats.Item) ([]byte, error) {
	entries, err := item.Flat()
	if err != nil {
		return dst, err
	}
	dst = appendInterval(dst, item)
	dst = append(dst, `,"schema":"`+statsSchema+`","appId":`...)
	dst = appendString(dst, app)
	dst = append(dst, `,"entries":{`...)
	first := true
	for name, v := range entries {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendFigure(dst, name, v)
	}
	return append(dst, "}}"...), nil
}

// appendNestedStats appends an item as JSON, in the form for versions below 3: objects in
// objects.
func appendNestedStats(dst []byte, item *stats.Item) ([]byte, error) {
	entries, err := item.Nested()
	if err != nil {
		return dst, err
	}
	dst = append(appendInterval(dst, item), ',')
	dst = appendNested(dst, entries)
	return append(dst, '}'), nil
}

// appendNested appends what paths, sorted, lead to as the members of an object. If there is
// nothing, it takes back the comma before it.
func appendNested(dst []byte, entries iter.Seq2[string, float64]) []byte {
	var open []string // the objects that the last member is in
	empty := true
	for path, v := range entries {
		names := strings.Split(path, ".")
		objects, name := names[:len(names)-1], names[len(names)-1]
		same := 0
		for same < len(open) && same < len(objects) && open[same] == objects[same] {
			same++
		}
		for range open[same:] {
			dst = append(dst, '}')
		}
		if !empty {
			dst = append(dst, ',')
		}
		for _, object := range objects[same:] {
			dst = append(appendString(dst, object), ":{"...)
		}
		dst = appendFigure(dst, name, v)
		open, empty = objects, false
	}
	for range open {
		dst = append(dst, '}')
	}
	if empty {
		return dst[:len(dst)-1]
	}
	return dst
}

// appendInterval begins an object with what both forms tell of the interval (TS12a, TS12c,
// TS12q).
func appendInterval(dst []byte, item *stats.Item) []byte {
	dst = append(dst, `{"intervalId":`...)
	dst = appendString(dst, item.Interval.String())
	dst = append(dst, `,"unit":"`+item.Interval.Unit.String()+`"`...)
	if !item.Until.IsZero() {
		dst = append(dst, `,"inProgress":"`...)
		dst = item.Until.UTC().AppendFormat(dst, "2006-01-02:15:04:05")
		dst = append(dst, '"')
	}
	return dst
}

func appendFigure(dst []byte, name string, v float64) []byte {
	dst = append(appendString(dst, name), ':')
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

func appendString(dst []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string is never an error
	return append(dst, text...)
}

// postStats answers POST /stats (G3), by which test suites say what GET /stats has to answer.
// Servers without a sandbox have no such resource.
func (a *API) postStats(c *call) (*answer, error) {
	if a.opts.Sandbox == nil {
		return nil, c.notAllowed(http.MethodGet)
	}
	grant, err := a.authenticateKey(c)
	if err != nil {
		return nil, err
	}
	if err := mayReadStats(grant); err != nil {
		return nil, err
	}
	body, err := a.readBody(c)
	if err != nil {
		return nil, err
	}
	text, err := wire.Transcode(nil, wire.JSON, c.bodyFormat(), body)
	if err != nil {
		return nil, pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid request body: %v", err)
	}
	fixtures, err := stats.DecodeFixtures(text)
	if err != nil {
		return nil, err
	}
	if err := a.opts.Stats.Replace(c.Context(), grant.App, fixtures); err != nil {
		return nil, pubsub.NewError(pubsub.CodeUnavailable, "the statistics cannot be stored; try again").Because(err)
	}
	return &answer{status: http.StatusCreated, body: wire.AppendArray(nil, c.format, 0, nil)}, nil
}

// authenticateKey is authenticate for what a token is not enough for.
func (a *API) authenticateKey(c *call) (*auth.Grant, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	if !grant.ByKey {
		return nil, pubsub.NewError(pubsub.CodeBasicAuthRequired, "this needs a key, not a token")
	}
	return grant, nil
}

// count counts the call for the app that it belongs to, if that is known by now.
func (c *call) count(err error) {
	outcome := stats.Succeeded
	if err != nil {
		switch pubsub.ErrorFor(err).StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
			outcome = stats.RequestRefused
		default:
			outcome = stats.RequestFailed
		}
	}
	if len(c.path) == 3 && c.path[2] == "requestToken" {
		c.counts.TokenRequest(outcome)
	} else {
		c.counts.Request(outcome)
	}
}

// retrieved counts items that the call was answered with.
func retrieved[T interface{ Size() int }](c *call, t stats.Type, items []T) {
	bytes := 0
	for _, item := range items {
		bytes += item.Size()
	}
	c.counts.Delivered(stats.REST, t, len(items), bytes)
}
