package hub

import (
	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// Barred is a Receiver that is told when the rule of its channel has come to keep its party
// out.
type Barred interface {
	Receiver

	// Barred says why the attachment has to end. By the time that it ends, Admitted tells
	// whether the rule has changed again. It must not block.
	Barred(err *pubsub.Error)
}

// RulesChanged looks whom the rules of their channels keep out now, and tells them: those whose
// Receiver is Barred. It is to be called after a change of what Options.Namespace returns. Whoever
// attaches from then on is asked for by the new rules; what else they say is looked up at each use.
func (h *Hub) RulesChanged() {
	var all []*channel
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.RLock()
		for _, c := range s.channels {
			all = append(all, c)
		}
		s.mu.RUnlock()
	}
	for _, c := range all {
		rule := h.opts.Namespace(c.id.App, c.id.Name)
		if !rule.TLSOnly && !rule.Identified {
			continue
		}
		for _, a := range c.attachments() {
			if to, ok := a.receiver.(Barred); ok {
				if err := admits(&rule, a.plaintext, a.anonymous); err != nil {
					to.Barred(err)
				}
			}
		}
	}
}

// Admitted reports why the channel's rule keeps the attachment's party out now, nil if it does
// not.
func (a *Attachment) Admitted() *pubsub.Error {
	c := a.channel
	rule := c.hub.opts.Namespace(c.id.App, c.id.Name)
	return admits(&rule, a.plaintext, a.anonymous)
}

// attachments are those of now.
func (c *channel) attachments() (all []*Attachment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.groups {
		all = append(all, c.groups[i].subs...)
	}
	return all
}

// admit refuses a party that a channel's rule keeps out.
func admit(rule *auth.Namespace, g *auth.Grant) error {
	if err := admits(rule, g.Plaintext, !g.Identified()); err != nil {
		return err
	}
	return nil
}

// admits refuses a party without TLS, or without a clientId of its own, that a channel's rule
// keeps out: CodeTLSRequired, CodeIdentifiedClientNeeded.
func admits(rule *auth.Namespace, plaintext, anonymous bool) *pubsub.Error {
	switch {
	case plaintext && rule.TLSOnly:
		return pubsub.NewError(pubsub.CodeTLSRequired, "the channel requires a connection with TLS")
	case anonymous && rule.Identified:
		return pubsub.NewError(pubsub.CodeIdentifiedClientNeeded, "the channel requires an identified client")
	}
	return nil
}

// CheckTLS refuses a party without TLS a channel whose namespace wants it, with
// CodeTLSRequired.
func (h *Hub) CheckTLS(g *auth.Grant, name pubsub.ChannelName) error {
	if !g.Plaintext {
		return nil
	}
	rule := h.opts.Namespace(g.App, name.Base)
	if err := admits(&rule, true, false); err != nil {
		return err
	}
	return nil
}
