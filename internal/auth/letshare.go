package auth

import (
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/pubsub"
)

// DefaultJWTHours is how long a LetShare token lives unless configured: 30 days.
const DefaultJWTHours = 720

// maxUserIDBytes bounds the parts of a LetShare token that connections keep.
const maxUserIDBytes = 1024

// LetShareClaims is what a LetShare token says.
type LetShareClaims struct {
	UserID   string // never empty
	UserType string // "desktop" and the like; may be empty
	RoomID   string // the room it is good for; empty for all

	IssuedAt time.Time // zero if it does not say
	Expires  time.Time
}

// JWTService makes and verifies LetShare tokens: JWTs with the claims user_id, user_type,
// room_id, iat and exp, signed with HS256 and one secret.
type JWTService struct {
	secret []byte
	life   time.Duration
}

// NewJWTService returns a service for one secret. Tokens that it makes live for
// expirationHours; zero or less means DefaultJWTHours. With an empty secret it makes and
// accepts nothing.
func NewJWTService(secret string, expirationHours int) *JWTService {
	if expirationHours <= 0 {
		expirationHours = DefaultJWTHours
	}
	return &JWTService{secret: []byte(secret), life: time.Duration(expirationHours) * time.Hour}
}

// GenerateToken returns a token for a user. An empty roomID makes it good for every room.
func (s *JWTService) GenerateToken(userID, userType, roomID string) (string, error) {
	switch {
	case len(s.secret) == 0:
		return "", errors.New("make a token: no secret is configured")
	case !isUserID(userID):
		return "", errors.New(`make a token: the user id must have 1 to 1024 bytes and not be "*"`)
	}
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"user_id":   userID,
		"user_type": userType,
		"room_id":   roomID,
		"iat":       now.Unix(),
		"exp":       now.Add(s.life).Unix(),
	}).SignedString(s.secret)
}

func isUserID(s string) bool {
	return s != "" && s != wildcardClientID && len(s) <= maxUserIDBytes
}

// Verify checks a token and returns what it says. Errors are *pubsub.Error with status 401
// and the text for the front-end's user, "token验证失败: " and a short cause.
func (s *JWTService) Verify(token string) (LetShareClaims, error) {
	if token == "" {
		return LetShareClaims{}, pubsub.NewError(pubsub.CodeInvalidCredentials, "缺少认证token")
	}
	raw, err := parseJWT(token, func(map[string]any) ([]byte, error) {
		if len(s.secret) == 0 {
			return nil, errJWTSignature
		}
		return s.secret, nil
	})
	switch {
	case errors.Is(err, errJWTAlgorithm):
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "不支持的签名算法")
	case errors.Is(err, errJWTSignature):
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "签名无效")
	case err != nil:
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "格式错误")
	}
	return readLetShareClaims(raw, time.Now())
}

func refusal(code pubsub.Code, cause string) error {
	return pubsub.NewError(code, "token验证失败: "+cause)
}

func readLetShareClaims(raw jwt.MapClaims, now time.Time) (LetShareClaims, error) {
	var c LetShareClaims
	for _, claim := range []struct {
		name string
		to   *string
	}{{"user_id", &c.UserID}, {"user_type", &c.UserType}, {"room_id", &c.RoomID}} {
		s, _, ok := stringClaim(raw, claim.name)
		if !ok || len(s) > maxUserIDBytes {
			return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, claim.name+"无效")
		}
		*claim.to = s
	}
	switch {
	case c.UserID == "":
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "缺少user_id")
	case !isUserID(c.UserID):
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "user_id无效")
	}

	var present, ok bool
	switch c.Expires, present, ok = timeClaim(raw, "exp"); {
	case !present:
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "缺少过期时间")
	case !ok:
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "过期时间无效")
	case !now.Before(c.Expires):
		return LetShareClaims{}, refusal(pubsub.CodeTokenExpired, "已过期")
	}
	if c.IssuedAt, present, ok = timeClaim(raw, "iat"); present && (!ok || c.IssuedAt.After(now.Add(clockSkew))) {
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "签发时间无效")
	}
	if t, present, ok := timeClaim(raw, "nbf"); present && (!ok || t.After(now.Add(clockSkew))) {
		return LetShareClaims{}, refusal(pubsub.CodeInvalidJWT, "尚未生效")
	}
	return c, nil
}

// LetShare authenticates the users of LetShare's own door.
type LetShare struct {
	Tokens      *JWTService
	App         string // id of the app whose channels are the rooms
	EnforceRoom bool   // a token with a room_id is good for that room only
	LocalOnly   bool   // the secret is published; see Grant.LocalOnly

	// Revocations of the app's keys count for its users' tokens too: those that name a
	// clientId, and those that name the room of a token that is for one. Nil: there are none.
	Revocations *Revocations
}

var (
	roomOps   = Ops(OpPublish, OpSubscribe)
	everyRoom = &Capability{rights: []right{newRight("*", roomOps)}}
)

// Authenticate verifies a token and returns its claims and what it allows: publishing and
// subscribing, as the token's user, in all rooms or in the token's. Errors are those of
// Verify, and one of its kind for a token that is revoked.
func (l *LetShare) Authenticate(token string) (LetShareClaims, *Grant, error) {
	claims, err := l.Tokens.Verify(token)
	if err != nil {
		return LetShareClaims{}, nil, err
	}
	capability := everyRoom
	if l.EnforceRoom && claims.RoomID != "" {
		capability = oneRoom(claims.RoomID)
	}
	g := &Grant{
		App:        l.App,
		ClientRule: ClientIdentified,
		ClientID:   claims.UserID,
		Capability: capability,
		Issued:     claims.IssuedAt,
		Expires:    claims.Expires,
		LocalOnly:  l.LocalOnly,
	}
	if l.Recheck(g) != nil {
		return LetShareClaims{}, nil, refusal(pubsub.CodeTokenRevoked, "已被撤销")
	}
	return claims, g, nil
}

// Recheck reports whether the token of a grant was revoked meanwhile, as CodeTokenRevoked.
func (l *LetShare) Recheck(g *Grant) *pubsub.Error { return l.Revocations.Check(g) }

// oneRoom allows one channel. A room's name has none of the characters that mean something
// in a capability; a token for such a name is good for no room, and not for many.
func oneRoom(name string) *Capability {
	if strings.ContainsAny(name, "*:[") {
		return &Capability{}
	}
	return &Capability{rights: []right{newRight(name, roomOps)}}
}
