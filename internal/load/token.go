package load

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

// mintToken makes the JWT that LetShare's door asks for, good for all rooms.
func mintToken(secret, user string, now time.Time, lifetime time.Duration) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims, _ := json.Marshal(struct {
		UserID   string `json:"user_id"`
		UserType string `json:"user_type"`
		RoomID   string `json:"room_id"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{user, "load", "", now.Unix(), now.Add(lifetime).Unix()}) // strings and numbers always encode
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}
