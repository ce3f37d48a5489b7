package cli

import (
	"fmt"
	"io"

	"letshare-server/internal/auth"
	"letshare-server/internal/config"
)

// key prints a new key for api_keys.
func key(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("key", "Prints a new key, appId.keyId:secret, for LETSHARE_API_KEYS or api_keys. It is kept nowhere.", stderr)
	app := fs.String("app", "", "`id` of the app that it is for; a new one if empty")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	made := config.NewKey(*app)
	if _, err := auth.ParseKey(made); err != nil {
		fmt.Fprintln(stderr, "-app must be made of letters, digits, \"_\" and \"-\"")
		return exitUsage
	}
	fmt.Fprintln(stdout, made)
	return exitOK
}
