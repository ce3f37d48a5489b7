package sse

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

// params is what a request asks for.
type params struct {
	style
	heartbeats bool // as events that applications see
	channels   []channelParams
	resume     []mark // where to go on; nil: from now on
}

// channelParams is what is asked for on one channel.
type channelParams struct {
	name   pubsub.ChannelName
	id     pubsub.ChannelID
	modes  pubsub.Mode
	rewind hub.Rewind
}

// checkVersion wants a version of the protocol, any that there was: streams are the same in
// all of them.
func checkVersion(q url.Values) error {
	major, _, _ := strings.Cut(q.Get("v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < 1 {
		return pubsub.NewError(pubsub.CodeUnsupportedVersion, "the parameter v must be a protocol version, such as 1.2")
	}
	return nil
}

// readParams reads the request. Errors are *pubsub.Error: CodeBadRequest without channels,
// CodeTooManyChannels, CodeInvalidChannelName, CodeInvalidParameterValue.
func (d *Door) readParams(r *http.Request, q url.Values, grant *auth.Grant) (*params, error) {
	p := &params{heartbeats: q.Get("heartbeats") == "true"}
	p.lines = r.URL.Path != "/sse" && !acceptsEvents(r.Header)
	p.bare = q.Get("enveloped") == "false"

	separator := ","
	if s := q.Get("separator"); s != "" {
		separator = s
	}
	limits := d.opts.Hub.Limits()
	most := limits.For(grant.App).ConnectionChannels
	known := make(map[string]bool)
	for _, list := range slices.Concat(q["channels"], q["channel"]) {
		for text := range strings.SplitSeq(list, separator) {
			if len(p.channels) == most {
				limits.Exceeded(limit.ConnectionChannels, grant.App)
				return nil, pubsub.Errorf(pubsub.CodeTooManyChannels, "a stream may have %d channels", most)
			}
			// A copy, since a part of the URL would keep all of it alive.
			name, err := pubsub.ParseChannelName(strings.Clone(text))
			if err != nil {
				return nil, err
			}
			once := name.Resource() + "\n" + name.Filter
			if known[once] {
				continue
			}
			known[once] = true
			c := channelParams{name: name, id: name.ID(grant.App)}
			if err := c.read(q); err != nil {
				return nil, err
			}
			p.channels = append(p.channels, c)
		}
	}
	if len(p.channels) == 0 {
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "the parameter channels is missing")
	}

	// EventSource repeats the URL, and says in the header how far it came.
	id := r.Header.Get("Last-Event-ID")
	for _, name := range []string{"lastEvent", "lastEventId"} {
		if id == "" {
			id = q.Get(name)
		}
	}
	if id != "" {
		var err error
		if p.resume, err = parseID(id); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// acceptsEvents reports whether the Accept header names Server-Sent Events.
func acceptsEvents(h http.Header) bool {
	for _, accept := range h.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			kind, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(kind), "text/event-stream") {
				return true
			}
		}
	}
	return false
}

// receivable are the modes that a stream can use.
const receivable = pubsub.ModeSubscribe | pubsub.ModePresenceSubscribe

// read reads the channel parameters: those of the URL are for all channels, and those in the
// channel's own qualifier win over them. Unknown ones are ignored.
func (c *channelParams) read(q url.Values) error {
	all := make(map[string]string)
	for _, name := range []string{"rewind", "rewindLimit", "modes", "delta"} {
		if v, ok := c.name.Params[name]; ok {
			all[name] = v[len(v)-1]
		} else if q.Has(name) {
			all[name] = q.Get(name)
		}
	}
	if v, ok := all["delta"]; ok && v != "vcdiff" { // to which full messages are an answer
		return pubsub.NewError(pubsub.CodeInvalidParameterValue, "Invalid channel param delta: must be vcdiff")
	}
	c.modes = receivable
	if v, ok := all["modes"]; ok {
		if c.modes &= pubsub.ParseModes(v); c.modes == 0 {
			return pubsub.NewError(pubsub.CodeInvalidParameterValue, "Invalid channel param modes: must name subscribe or presence_subscribe")
		}
	}
	var err error
	c.rewind, err = hub.ParseRewind(all)
	return err
}
