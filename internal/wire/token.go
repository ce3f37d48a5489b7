package wire

import "letshare-server/internal/pubsub"

// TokenRequest is the body of a request for an Ably token (TE2-5). Every field is the text that
// came, which is what the signature is over: a number as it was written, an object as compact
// JSON. Absent fields are empty.
type TokenRequest struct {
	KeyName     string
	TTL         string
	Capability  string
	ClientID    string
	HasClientID bool // there was a clientId, if only ""
	Timestamp   string
	Nonce       string
	MAC         string
}

// DecodeTokenRequest reads the body of a request for a token. Errors are *pubsub.Error:
// CodeInvalidRequestBody, or what tells of a field of a wrong type.
func DecodeTokenRequest(f Format, b []byte) (*TokenRequest, error) {
	r := newReader(f, b)
	t := new(TokenRequest)
	if r.err == nil && r.expect("the body", kindObject, "an object") {
		for it := r.object(); r.nextKey(&it); {
			if r.null() {
				continue
			}
			switch string(r.key) {
			case "keyName":
				t.KeyName = r.bodyString("keyName", pubsub.CodeInvalidParameterValue)
			case "ttl":
				t.TTL = r.numberText("ttl")
			case "capability":
				if r.peek() == kindObject {
					t.Capability = string(r.jsonText())
				} else {
					t.Capability = r.bodyString("capability", pubsub.CodeBadRequest)
				}
			case "clientId":
				t.ClientID, t.HasClientID = r.bodyString("clientId", pubsub.CodeInvalidClientID), true
			case "timestamp":
				t.Timestamp = r.numberText("timestamp")
			case "nonce":
				t.Nonce = r.bodyString("nonce", pubsub.CodeInvalidParameterValue)
			case "mac":
				t.MAC = r.bodyString("mac", pubsub.CodeInvalidParameterValue)
			default:
				r.skip()
			}
		}
	}
	if err := r.finish(); err != nil {
		return nil, pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid request body: %v", err)
	}
	if r.itemErr != nil {
		return nil, r.itemErr
	}
	return t, nil
}

// numberText reads a number, or a string that stands for one, and returns its text.
func (r *reader) numberText(field string) string {
	if r.peek() == kindNumber {
		return r.number().String()
	}
	return r.bodyString(field, pubsub.CodeInvalidParameterValue)
}

// bodyString reads a string. Anything else is an error with code.
func (r *reader) bodyString(field string, code pubsub.Code) string {
	if r.peek() == kindString {
		if s := r.str(); r.validText(s) {
			return string(s)
		}
	} else {
		r.skip()
	}
	if r.itemErr == nil {
		r.itemErr = pubsub.Errorf(code, "Invalid %s: must be a string", field)
	}
	return ""
}

// TokenDetails is an Ably token as a client sees it (TD2-6). Times are in ms since the epoch.
type TokenDetails struct {
	Token      string
	KeyName    string
	Issued     int64
	Expires    int64
	Capability string // JSON, as a string
	ClientID   string // left out if empty
}

// AppendTokenDetails appends the body that answers a request for a token. The JavaScript SDK
// knows it by its issued.
func AppendTokenDetails(dst []byte, f Format, t *TokenDetails) []byte {
	w := writer{b: dst, format: f}
	object := w.object()
	w.key("token")
	w.str(t.Token)
	w.key("keyName")
	w.str(t.KeyName)
	w.key("issued")
	w.int(t.Issued)
	w.key("expires")
	w.int(t.Expires)
	w.key("capability")
	w.str(t.Capability)
	w.optional("clientId", t.ClientID)
	w.endObject(object)
	return w.b
}
