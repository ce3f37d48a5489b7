package cli

import (
	"fmt"
	"io"

	"letshare-server/internal/auth"
)

// token mints a token for LetShare's door with the secret that serve would use.
func token(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("token", "Prints a token for LetShare's door, signed with the configured secret.", stderr)
	flags := addConfigFlags(fs)
	user := fs.String("user", "", "user `id`; required")
	userType := fs.String("type", "desktop", "type of the user's device")
	room := fs.String("room", "", "`room` that the token is limited to; empty: all rooms")
	hours := fs.Int("hours", 0, "how many hours it lives; jwt.expiration_hours if 0")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	if *user == "" {
		fmt.Fprintln(stderr, "-user is required: the id that the token is for")
		return exitUsage
	}
	cfg, _, err := flags.load()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	secrets, err := resolveSecrets(cfg)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	for _, w := range secrets.Warnings {
		fmt.Fprintln(stderr, "warning:", w)
	}
	if *hours == 0 {
		*hours = cfg.JWT.ExpirationHours
	}
	t, err := auth.NewJWTService(string(secrets.JWTSecret), *hours).GenerateToken(*user, *userType, *room)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	fmt.Fprintln(stdout, t)
	return exitOK
}
