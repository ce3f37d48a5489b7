// Package cli is the command line: subcommands, flags, signals and exit codes. Everything
// that they do is in the packages that it calls.
package cli
