package errorlog

import (
	"net/url"
	"strings"
)

// secretParams are the parameters of URLs whose values are credentials, or let somebody
// take over a connection.
var secretParams = map[string]bool{
	"token": true, "access_token": true, "accesstoken": true, "key": true, "resume": true, "recover": true,
	"pro_token": true, "secret": true, "password": true,
}

// RedactURL returns a URL, or the part of one after the host, with the values of secret
// parameters replaced and user and password left out. It never fails: what it cannot parse
// is treated the same way, as text.
func RedactURL(raw string) string {
	if scheme, rest, has := strings.Cut(raw, "://"); has {
		authority, _, _ := strings.Cut(rest, "/")
		authority, _, _ = strings.Cut(authority, "?")
		if at := strings.LastIndexByte(authority, '@'); at >= 0 {
			raw = scheme + "://" + rest[at+1:]
		}
	}
	path, query, has := strings.Cut(raw, "?")
	if !has {
		return raw
	}
	query, fragment, hasFragment := strings.Cut(query, "#")
	pairs := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' })
	for i, pair := range pairs {
		name, _, hasValue := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		if hasValue && (err != nil || secretParams[strings.ToLower(plain)]) {
			pairs[i] = name + "=***"
		}
	}
	raw = path + "?" + strings.Join(pairs, "&")
	if hasFragment {
		raw += "#" + RedactURL("?" + fragment)[1:]
	}
	return raw
}
