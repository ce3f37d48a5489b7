package hub

import (
	"bytes"
	"encoding/json"
	"slices"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// allowedExtras are the top-level keys of extras that a client may publish (TM2i, REX2a-b).
var allowedExtras = map[string]bool{
	"headers": true, "push": true, "ref": true, "ephemeral": true, "privileged": true, "delta": true, "ai": true,
}

// checkExtras checks a message's extras and reports whether it asks to be
// ephemeral. It takes what they say of a delta away, as in a message that is sent on: clients
// would look for its base.
func checkExtras(m *pubsub.Message, ops auth.OpSet) (ephemeral bool, err error) {
	if len(m.Extras) == 0 {
		return false, nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(m.Extras, &fields) != nil {
		return false, pubsub.NewError(pubsub.CodeInvalidExtras, "message extras must be an object")
	}
	for key := range fields {
		if !allowedExtras[key] {
			return false, pubsub.Errorf(pubsub.CodeInvalidExtras, "Message has impermissible extras fields: %s", key)
		}
	}
	if h, ok := fields["headers"]; ok && !isFlatObject(h) {
		return false, pubsub.NewError(pubsub.CodeInvalidExtras, "extras.headers must be an object of strings, numbers, booleans and nulls")
	}
	if _, ok := fields["privileged"]; ok && !ops.Has(auth.OpPrivilegedHeaders) {
		return false, pubsub.NewError(pubsub.CodeCapabilityDenied, "extras.privileged needs the privileged-headers capability")
	}
	if _, ok := fields["delta"]; ok {
		delete(fields, "delta")
		m.Extras = nil
		if len(fields) > 0 {
			m.Extras, _ = json.Marshal(fields) // was JSON
		}
	}
	return string(bytes.TrimSpace(fields["ephemeral"])) == "true", nil
}

// checkPresenceExtras checks a member's extras. Products keep keys of their own there, so
// that all are allowed but those that only a server sets.
func checkPresenceExtras(extras []byte) error {
	if len(extras) == 0 {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(extras, &fields) != nil {
		return pubsub.NewError(pubsub.CodeInvalidExtras, "presence extras must be an object")
	}
	for _, key := range []string{"userClaim", "privileged"} {
		if _, ok := fields[key]; ok {
			return pubsub.Errorf(pubsub.CodeInvalidExtras, "Presence message has impermissible extras fields: %s", key)
		}
	}
	if h, ok := fields["headers"]; ok && !isFlatObject(h) {
		return pubsub.NewError(pubsub.CodeInvalidExtras, "extras.headers must be an object of strings, numbers, booleans and nulls")
	}
	return nil
}

// withUserClaim adds what the issuer of the publisher's token says of it to extras that were
// checked.
func withUserClaim(extras []byte, claim string) []byte {
	value, _ := json.Marshal(claim) // cannot fail
	return withExtra(extras, "userClaim", value)
}

// withExtra adds a field with a value in JSON to extras that were checked, so that they are an
// object, null or nothing.
func withExtra(extras []byte, key string, value []byte) []byte {
	fields := bytes.TrimSpace(extras)
	if len(fields) < 2 || fields[0] != '{' {
		fields = []byte("{}")
	}
	fields = bytes.TrimSpace(fields[1 : len(fields)-1])
	separator := ""
	if len(fields) > 0 {
		separator = ","
	}
	return slices.Concat([]byte("{"), fields, []byte(separator+`"`+key+`":`), value, []byte("}"))
}

func isFlatObject(b []byte) bool {
	var values map[string]json.RawMessage
	if json.Unmarshal(b, &values) != nil || values == nil {
		return false
	}
	for _, v := range values {
		if v = bytes.TrimSpace(v); len(v) > 0 && (v[0] == '{' || v[0] == '[') {
			return false
		}
	}
	return true
}
