package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

func TestTheDocumentedWayToATestTokenWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jwtService := auth.NewJWTService("your-secret", 720)
		token, err := jwtService.GenerateToken("user123", "desktop", "room456")
		if err != nil {
			t.Fatal(err)
		}
		c, err := jwtService.Verify(token)
		want := auth.LetShareClaims{UserID: "user123", UserType: "desktop", RoomID: "room456",
			IssuedAt: time.Unix(time.Now().Unix(), 0), Expires: time.Unix(time.Now().Unix(), 0).Add(30 * 24 * time.Hour)}
		if err != nil || c.UserID != want.UserID || c.UserType != want.UserType || c.RoomID != want.RoomID ||
			!c.IssuedAt.Equal(want.IssuedAt) || !c.Expires.Equal(want.Expires) {
			t.Errorf("got %+v %v, want %+v", c, err, want)
		}
		time.Sleep(720*time.Hour - time.Second)
		if _, err := jwtService.Verify(token); err != nil {
			t.Errorf("too early: %v", err)
		}
		time.Sleep(time.Second)
		_, err = jwtService.Verify(token)
		if text := code(t, err, pubsub.CodeTokenExpired, 401); text != "token验证失败: 已过期" {
			t.Errorf("got %q", text)
		}
	})
}

func TestThirtyDaysAreTheDefault(t *testing.T) {
	s := auth.NewJWTService("x", 0)
	token, err := s.GenerateToken("u", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := s.Verify(token); err != nil || c.Expires.Sub(c.IssuedAt) != 30*24*time.Hour {
		t.Errorf("got %+v %v", c, err)
	}
}

func TestWhatIsNoLetShareTokenIsRefusedWithACause(t *testing.T) {
	s := auth.NewJWTService("secret", 1)
	base := jwt.MapClaims{"user_id": "u", "user_type": "desktop", "room_id": "", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	with := func(method jwt.SigningMethod, key any, name string, value any) string {
		claims := maps.Clone(base)
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	hs256 := func(name string, value any) string {
		return with(jwt.SigningMethodHS256, []byte("secret"), name, value)
	}
	if _, err := s.Verify(hs256("more", 1)); err != nil {
		t.Fatal(err)
	}
	good := hs256("more", 1)
	for _, c := range []struct{ name, token, want string }{
		{"missing", "", "缺少认证token"},
		{"garbage", "garbage", "token验证失败: 格式错误"},
		{"two dots", "a.b.c", "token验证失败: 格式错误"},
		{"line end", good + "\n", "token验证失败: 格式错误"},
		{"huge", strings.Repeat("a", 200<<10) + ".b.c", "token验证失败: 格式错误"},
		{"another secret", with(jwt.SigningMethodHS256, []byte("other"), "more", 1), "token验证失败: 签名无效"},
		{"none", with(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "more", 1), "token验证失败: 不支持的签名算法"},
		{"HS384", with(jwt.SigningMethodHS384, []byte("secret"), "more", 1), "token验证失败: 不支持的签名算法"},
		{"HS512", with(jwt.SigningMethodHS512, []byte("secret"), "more", 1), "token验证失败: 不支持的签名算法"},
		{"no user", hs256("user_id", nil), "token验证失败: 缺少user_id"},
		{"empty user", hs256("user_id", ""), "token验证失败: 缺少user_id"},
		{"number as user", hs256("user_id", 7), "token验证失败: user_id无效"},
		{"everybody", hs256("user_id", "*"), "token验证失败: user_id无效"},
		{"long user", hs256("user_id", strings.Repeat("u", 2000)), "token验证失败: user_id无效"},
		{"list as type", hs256("user_type", []string{"a"}), "token验证失败: user_type无效"},
		{"number as room", hs256("room_id", 7), "token验证失败: room_id无效"},
		{"no exp", hs256("exp", nil), "token验证失败: 缺少过期时间"},
		{"text as exp", hs256("exp", "9999999999"), "token验证失败: 过期时间无效"},
		{"endless exp", hs256("exp", 1e300), "token验证失败: 过期时间无效"},
		{"negative exp", hs256("exp", -1), "token验证失败: 过期时间无效"},
		{"expired", hs256("exp", time.Now().Add(-time.Second).Unix()), "token验证失败: 已过期"},
		{"text as iat", hs256("iat", "now"), "token验证失败: 签发时间无效"},
		{"future iat", hs256("iat", time.Now().Add(time.Hour).Unix()), "token验证失败: 签发时间无效"},
		{"future nbf", hs256("nbf", time.Now().Add(time.Hour).Unix()), "token验证失败: 尚未生效"},
	} {
		_, err := s.Verify(c.token)
		e := pubsub.ErrorFor(err)
		if e == nil || e.Message != c.want || e.StatusCode != 401 {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	for _, claim := range []string{"iat", "user_type", "room_id"} {
		if _, err := s.Verify(hs256(claim, nil)); err != nil {
			t.Errorf("without %s: %v", claim, err)
		}
	}
}

func TestWithoutASecretNoTokenIsMadeOrAccepted(t *testing.T) {
	s := auth.NewJWTService("", 1)
	if _, err := s.GenerateToken("u", "", ""); err == nil {
		t.Error("made")
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"user_id": "u", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(token); err == nil {
		t.Error("accepted")
	}
	for _, id := range []string{"", "*"} {
		if _, err := auth.NewJWTService("x", 1).GenerateToken(id, "", ""); err == nil {
			t.Errorf("made for %q", id)
		}
	}
}

func TestALetShareTokenAllowsPublishAndSubscribeInItsRooms(t *testing.T) {
	service := auth.NewJWTService("secret", 1)
	for _, c := range []struct {
		name, room string
		enforce    bool
		yes, no    []string
	}{
		{"no room", "", true, []string{"房间", "ab"}, []string{"[meta]log"}},
		{"one room", "房间 1", true, []string{"房间 1"}, []string{"房间", "ab"}},
		{"not enforced", "房间 1", false, []string{"房间 1", "ab"}, nil},
		{"a wildcard is no wildcard", "*", true, nil, []string{"*", "ab", "a:b"}},
		{"nor is a namespace", "a:*", true, nil, []string{"a:b", "a:*"}},
		{"nor a class", "[*]*", true, nil, []string{"ab", "[meta]log"}},
	} {
		token, err := service.GenerateToken("u:1", "desktop", c.room)
		if err != nil {
			t.Fatal(err)
		}
		door := auth.LetShare{Tokens: service, App: "app001", EnforceRoom: c.enforce, LocalOnly: true}
		claims, g, err := door.Authenticate(token)
		if err != nil || claims.RoomID != c.room || g.App != "app001" || g.ClientID != "u:1" || !g.Identified() || !g.LocalOnly ||
			!g.Expires.Equal(claims.Expires) {
			t.Errorf("%s: %v %v", c.name, g, err)
			continue
		}
		for _, room := range c.yes {
			if g.Ops(room) != auth.Ops(auth.OpPublish, auth.OpSubscribe) {
				t.Errorf("%s: %v in %s", c.name, g.Ops(room), room)
			}
		}
		for _, room := range c.no {
			if g.Ops(room) != 0 {
				t.Errorf("%s: %v in %s", c.name, g.Ops(room), room)
			}
		}
	}
	if _, _, err := (&auth.LetShare{Tokens: service}).Authenticate(""); err == nil {
		t.Error("no error without a token")
	}
}

// isSigned reports whether a token is, byte for byte, what HS256 with the secret makes of
// its first two parts.
func isSigned(token, secret string) bool {
	end := strings.LastIndexByte(token, '.')
	if end < 0 {
		return false
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(token[:end]))
	return token[end+1:] == base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// FuzzLetShareToken: nothing gets in but what was signed; what is signed has a user.
func FuzzLetShareToken(f *testing.F) {
	s := auth.NewJWTService("secret", 100_000)
	good, err := s.GenerateToken("u", "desktop", "room")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, `{"user_id":"u","exp":99999999999}`)
	f.Add(good+"\n", `{"user_id":"u","exp":9e10,"iat":1.5}`)
	f.Add(good[:len(good)-1]+"B", `{"user_id":["u"],"exp":99999999999}`)
	f.Add(strings.Replace(good, "eyJhbGciOiJIUzI1NiI", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"`)), 1), `{"USER_ID":"u","user_id":1,"exp":1e400}`)
	f.Add("..", `null`)
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`))
	f.Fuzz(func(t *testing.T, token, claims string) {
		if _, err := s.Verify(token); err == nil && !isSigned(token, "secret") {
			t.Errorf("%q got in", token)
		} else if err != nil {
			if e := pubsub.ErrorFor(err); e.StatusCode != 401 || e.Code == pubsub.CodeInternalError {
				t.Errorf("%q: %v", token, err)
			}
		}
		// Properly signed, whatever it says.
		text := header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		signature, err := jwt.SigningMethodHS256.Sign(text, []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Verify(text + "." + base64.RawURLEncoding.EncodeToString(signature))
		if err == nil && (c.UserID == "" || c.UserID == "*" || !c.Expires.After(time.Now()) || c.IssuedAt.After(time.Now().Add(time.Hour))) {
			t.Errorf("%s was taken for %+v", claims, c)
		}
	})
}
