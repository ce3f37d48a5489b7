package session

import (
	"maps"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// channelParams are the parameters of an attachment that this server knows (RTL4k, TB2c). Any
// other is ignored, the products' agent too (WP7).
type channelParams struct {
	effective map[string]string // as they were given, told to the client (RTL4k1)

	noEcho    bool
	rewind    hub.Rewind
	occupancy hub.OccupancyView
}

// known are the names of channelParams.effective.
var known = map[string]bool{"modes": true, "echo": true, "rewind": true, "rewindLimit": true, "delta": true, "occupancy": true, "appendMode": true}

// readParams takes the parameters of an ATTACH, which win over those in the channel's
// qualifier. Unknown ones are ignored; a value that makes no sense is
// CodeInvalidParameterValue.
func readParams(name pubsub.ChannelName, given map[string]string) (channelParams, error) {
	var p channelParams
	if len(given) == 0 && len(name.Params) == 0 {
		return p, nil
	}
	all := make(map[string]string, len(given)+len(name.Params))
	for k, v := range name.Params {
		all[k] = v[len(v)-1]
	}
	maps.Copy(all, given)
	maps.DeleteFunc(all, func(k, _ string) bool { return !known[k] })
	p.effective = all
	p.noEcho = all["echo"] == "false"
	if v, ok := all["appendMode"]; ok && v != "full" {
		return p, invalidParam("appendMode", v, "must be full")
	}
	if v, ok := all["delta"]; ok && v != "vcdiff" {
		return p, invalidParam("delta", v, "must be vcdiff")
	}
	if v, ok := all["occupancy"]; ok {
		if p.occupancy, ok = hub.ParseOccupancyView(v); !ok {
			return p, invalidParam("occupancy", v, `must be metrics or "metrics." and a category`)
		}
	}
	var err error
	p.rewind, err = hub.ParseRewind(all)
	return p, err
}

// withhold leaves out what the grant does not allow on the channel: an attachment does without
// it.
func (p *channelParams) withhold(g *auth.Grant, name pubsub.ChannelName) {
	if p.occupancy != hub.NoOccupancy && !g.Allows(auth.OpChannelMetadata, name.Resource()) {
		p.occupancy = hub.NoOccupancy
		delete(p.effective, "occupancy")
	}
}

func invalidParam(name, value, rule string) error {
	return pubsub.Errorf(pubsub.CodeInvalidParameterValue, "Invalid channel param %s=%q: %s", name, clip(value), rule)
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
