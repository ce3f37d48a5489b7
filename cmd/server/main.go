// Command server is LetShare Server: a realtime server for LetShare and for Ably's SDKs.
//
// "server help" lists its subcommands; without one it serves.
package main

import (
	"os"

	"letshare-server/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
