package cli

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

// stdin is where a key is read from that must not stand on the command line.
var stdin io.Reader = os.Stdin

// token mints a token with the secrets that serve would use: for LetShare's door, or an Ably
// JWT.
func token(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("token", "Prints a token for LetShare's door, signed with the configured secret, or with -ably an Ably JWT,\n"+
		"signed with a key.", stderr)
	flags := addConfigFlags(fs)
	user := fs.String("user", "", "user `id`; required without -ably")
	userType := fs.String("type", "desktop", "type of the user's device")
	room := fs.String("room", "", "`room` that the token is limited to; empty: all rooms")
	hours := fs.Int("hours", 0, "how many hours it lives; jwt.expiration_hours if 0")
	ably := fs.Bool("ably", false, "make an Ably JWT")
	key := fs.String("key", "", "`key` that signs it: the name of a configured one, appId.keyId:secret, or - to read that from the\n"+
		"standard input; the first configured one if empty. Others can see what stands on a command line")
	capability := fs.String("capability", "", `what it may do, in `+"`JSON`"+` such as {"chat:*":["subscribe"]}; empty: all that its key may do`)
	clientID := fs.String("client-id", "", "clientId that it is for; * for any; empty: anonymous")
	ttl := fs.Duration("ttl", time.Hour, "how long it lives, 24h at most")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	if err := checkTokenFlags(fs, *ably); err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	secrets, cfg, err := tokenSecrets(flags, *ably && keyIsGiven(*key), stderr)
	var made string
	switch {
	case err != nil:
	case *ably:
		var k auth.Key
		if k, err = signingKey(*key, secrets); err == nil {
			made, err = auth.SignAblyJWT(k, auth.AblyJWT{Life: *ttl, ClientID: *clientID, Capability: *capability}, time.Now())
		}
	default:
		if *hours == 0 {
			*hours = cfg.JWT.ExpirationHours
		}
		made, err = auth.NewJWTService(string(secrets.JWTSecret), *hours).GenerateToken(*user, *userType, *room)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	fmt.Fprintln(stdout, made)
	return exitOK
}

// checkTokenFlags refuses flags of the other kind of token, which would be ignored.
func checkTokenFlags(fs *flag.FlagSet, ably bool) error {
	kinds := map[string]bool{"user": false, "type": false, "room": false, "hours": false,
		"key": true, "capability": true, "client-id": true, "ttl": true}
	var err error
	fs.Visit(func(f *flag.Flag) {
		if of, is := kinds[f.Name]; is && of != ably {
			err = fmt.Errorf("-%s is not for this kind of token", f.Name)
		}
	})
	if err == nil && !ably && fs.Lookup("user").Value.String() == "" {
		err = errors.New("-user is required: the id that the token is for (or -ably, for an Ably JWT)")
	}
	return err
}

// keyIsGiven reports whether no configuration is needed for a key.
func keyIsGiven(text string) bool { return text == "-" || strings.Contains(text, ":") }

// tokenSecrets are those that serve would use. Who gives a key needs none, and none are made.
func tokenSecrets(flags *configFlags, given bool, stderr io.Writer) (config.Secrets, config.Config, error) {
	if given {
		return config.Secrets{}, config.Config{}, nil
	}
	cfg, _, err := flags.load()
	if err != nil {
		return config.Secrets{}, cfg, err
	}
	secrets, err := resolveSecrets(cfg, make(map[string]string))
	for _, w := range secrets.Warnings {
		fmt.Fprintln(stderr, "warning:", w)
	}
	return secrets, cfg, err
}

// signingKey is the key that the flag -key means.
func signingKey(text string, secrets config.Secrets) (auth.Key, error) {
	if text == "-" {
		line, err := bufio.NewReader(io.LimitReader(stdin, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return auth.Key{}, fmt.Errorf("the key cannot be read: %w", err)
		}
		return auth.ParseKey(strings.TrimSpace(line))
	}
	if keyIsGiven(text) {
		return auth.ParseKey(text)
	}
	for _, k := range secrets.Keys {
		key := auth.Key{AppID: k.App, ID: k.ID, Secret: string(k.Secret), Revocable: k.Revocable}
		if text == "" || text == key.Name() {
			return key, nil
		}
	}
	return auth.Key{}, fmt.Errorf("no key %s is configured", text)
}
