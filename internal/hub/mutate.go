package hub

import (
	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// The operations of which one is needed to change a message that was published before.
var (
	updateOps = auth.Ops(auth.OpMessageUpdateOwn, auth.OpMessageUpdateAny)
	deleteOps = auth.Ops(auth.OpMessageDeleteOwn, auth.OpMessageDeleteAny)
)

// MutateOps are those of which one is needed to update, delete or append to messages.
var MutateOps = updateOps | deleteOps

// RefuseMutation returns why messages of a channel cannot be updated, deleted, appended to or
// annotated, or their annotations read, by a party that needs one of the given operations
// for it. There is always a reason: CodeCapabilityDenied, CodeTLSRequired,
// CodeIdentifiedClientNeeded; CodeMutableRuleMissing, if the channel's namespace does not allow
// it; or else CodeBadRequest, as long as the hub cannot do it.
func (h *Hub) RefuseMutation(g *auth.Grant, name pubsub.ChannelName, needed auth.OpSet) error {
	if name.Qualifier != "" || g.Ops(name.Resource())&needed == 0 {
		return denied("change or annotate messages of", name)
	}
	rule := h.opts.Namespace(g.App, name.Base)
	if err := admit(&rule, g); err != nil {
		return err
	}
	if !rule.MutableMessages {
		return pubsub.NewError(pubsub.CodeMutableRuleMissing, "message updates, deletes, appends and annotations are not enabled for this channel")
	}
	return pubsub.NewError(pubsub.CodeBadRequest, "this server does not support message updates, deletes, appends and annotations yet")
}

// mutation returns the operations of which one is needed for what the messages change, or
// none if all of them are new.
func mutation(messages []*pubsub.Message) auth.OpSet {
	for _, m := range messages {
		switch m.Action {
		case pubsub.MessageUpdate, pubsub.MessageAppend:
			return updateOps
		case pubsub.MessageDelete:
			return deleteOps
		}
	}
	return 0
}
