package wire

import "letshare-server/internal/pubsub"

// Limits of a batch publish. What is beyond them is not kept.
const (
	MaxBatchChannels = 100    // that one spec names
	MaxBatchSpecs    = 1000   // of one batch
	MaxBatchMessages = 10_000 // of all specs together; of one it is MaxItems
)

// BatchSpec says what a part of a batch publish publishes, and where to (BSP2a-b). Neither list is
// empty.
type BatchSpec struct {
	Channels []string // as written; they may be no names of channels
	Messages []*pubsub.Message
}

// DecodeBatch reads the body of a batch publish: a spec, or an array of them. What is wrong with
// one of them is wrong with the batch. Errors are *pubsub.Error: CodeInvalidRequestBody,
// CodeBadRequest, CodeTooManyChannels, CodeTooManyMessages, or what tells of a message.
func DecodeBatch(f Format, b []byte) ([]BatchSpec, error) {
	return decodeItems(f, b, (*reader).batch)
}

func (r *reader) batch() (specs []BatchSpec) {
	switch r.peek() {
	case kindObject:
		specs = append(specs, r.batchSpec())
	case kindArray:
		messages := 0
		for it := r.array(); r.next(&it); {
			switch {
			case r.itemErr != nil: // nothing will be published
			case it.seen > MaxBatchSpecs:
				r.badBatch(pubsub.CodeTooManyMessages, "a batch has %d specs at most", MaxBatchSpecs)
			case r.peek() != kindObject:
				r.badBatch(pubsub.CodeBadRequest, "a batch consists of objects")
			default:
				spec := r.batchSpec()
				if messages += len(spec.Messages); messages > MaxBatchMessages {
					r.badBatch(pubsub.CodeTooManyMessages, "a batch has %d messages at most", MaxBatchMessages)
				}
				specs = append(specs, spec)
				continue
			}
			r.skip()
		}
		if len(specs) == 0 {
			r.badBatch(pubsub.CodeBadRequest, "there is nothing to publish")
		}
	default:
		r.badBatch(pubsub.CodeBadRequest, "a batch is an object or an array of objects")
		r.skip()
	}
	return specs
}

func (r *reader) batchSpec() (s BatchSpec) {
	for it := r.object(); r.nextKey(&it); {
		switch string(r.key) {
		case "channels":
			s.Channels = r.batchChannels()
		case "messages":
			s.Messages = r.messages()
		default:
			r.skip()
		}
	}
	switch {
	case len(s.Channels) == 0:
		r.badBatch(pubsub.CodeBadRequest, "there is no channel to publish to")
	case len(s.Messages) == 0:
		r.badBatch(pubsub.CodeBadRequest, "there is no message to publish")
	}
	return s
}

// batchChannels reads a name or an array of names.
func (r *reader) batchChannels() (names []string) {
	if r.peek() != kindArray {
		return []string{r.bodyString("channels", pubsub.CodeBadRequest)}
	}
	for it := r.array(); r.next(&it); {
		if it.seen > MaxBatchChannels {
			r.badBatch(pubsub.CodeTooManyChannels, "a batch has %d channels at most", MaxBatchChannels)
			r.skip()
			continue
		}
		names = append(names, r.bodyString("channels", pubsub.CodeBadRequest))
	}
	return names
}

// badBatch notes what is wrong with a batch as a whole.
func (r *reader) badBatch(code pubsub.Code, format string, args ...any) {
	if r.itemErr == nil {
		r.itemErr = pubsub.Errorf(code, format, args...)
	}
}

// AppendBatchFailure appends what became of one channel of a batch: an error (BPF2a-b, BGF2a-b).
func AppendBatchFailure(dst []byte, f Format, channel string, e *ErrorInfo) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("channel")
	w.str(channel)
	w.key("error")
	w.errorInfo(e)
	w.endObject(object)
	return w.b
}

// AppendChannelPresence appends the members of one channel of a batch (BGR2a-b).
func AppendChannelPresence(dst []byte, f Format, channel string, members []*pubsub.PresenceMessage) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("channel")
	w.str(channel)
	w.key("presence")
	w.b = AppendPresence(w.b, f, members)
	w.endObject(object)
	return w.b
}

// AppendBatchResult appends how a batch ended (BAR2a-c): how many of its n items succeeded and
// how many did not, and the items, each appended by elem.
func AppendBatchResult(dst []byte, f Format, succeeded, failed, n int, elem func(dst []byte, i int) []byte) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("successCount")
	w.int(int64(succeeded))
	w.key("failureCount")
	w.int(int64(failed))
	w.key("results")
	w.b = AppendArray(w.b, f, n, elem)
	w.endObject(object)
	return w.b
}

// AppendBatchError appends the body that tells older clients that items of a batch failed: the
// error, and all n items as batchResponse.
func AppendBatchError(dst []byte, f Format, e *ErrorInfo, n int, elem func(dst []byte, i int) []byte) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("error")
	w.errorInfo(e)
	w.key("batchResponse")
	w.b = AppendArray(w.b, f, n, elem)
	w.endObject(object)
	return w.b
}
