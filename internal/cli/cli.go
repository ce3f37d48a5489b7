package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"letshare-server/internal/config"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/load"
	"letshare-server/internal/server"
	"letshare-server/internal/stats"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// command is a subcommand.
type command struct {
	name string
	help string
	run  func(args []string, stdout, stderr io.Writer) int
}

func commands() []command {
	return []command{
		{"serve", "run the server (the default)", serve},
		{"token", "print a token for LetShare's door, or an Ably JWT", token},
		{"key", "print a new API key", key},
		{"load", "put a server under load and verify every delivery", load.Main},
		{"health", "ask a running server whether it is healthy", health},
		{"backup", "copy the database, of a running server too", backup},
		{"restore", "make a database from such a copy", restore},
		{"compact", "give the free space of the database back; not while the server runs", compact},
		{"check-config", "check the configuration and say what is wrong with it", checkConfig},
		{"default-config", "print the default configuration with comments", defaultConfig},
		{"version", "print the version", version},
	}
}

// Main runs the program with the arguments after its name and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	name := "serve"
	if len(args) > 0 && (args[0] == "" || args[0][0] != '-') {
		name, args = args[0], args[1:]
	} else if len(args) > 0 && slices.Contains([]string{"-h", "-help", "--help"}, args[0]) {
		name = "help"
	}
	if name == "help" {
		usage(stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(args, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "unknown command %q\n\n", name)
	usage(stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "LetShare Server: realtime for LetShare and for Ably's SDKs.\n\nUsage: letshare-server [command] [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-15s %s\n", c.name, c.help)
	}
	fmt.Fprintf(w, "\nEach command explains its flags with -h.\n")
}

// newFlags returns the flags of a command; its usage begins with help.
func newFlags(name, help string, stderr io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "Usage: letshare-server %s [flags]\n\n%s\n\n", name, help)
		fs.PrintDefaults()
	}
	return fs
}

// parse reads the flags. ok is false when the command should end with code.
func parse(fs *flag.FlagSet, args []string, stderr io.Writer) (code int, ok bool) {
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK, false
	case err != nil:
		return exitUsage, false
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "unexpected argument %q\n", fs.Arg(0))
		return exitUsage, false
	}
	return exitOK, true
}

// configFlags are the flags by which the configuration is found and changed.
type configFlags struct {
	file *string
	set  map[string]string
}

func addConfigFlags(fs *flag.FlagSet) *configFlags {
	f := &configFlags{set: make(map[string]string)}
	f.file = fs.String("config", "", "configuration `file`; configs/$MODE.yaml if empty")
	fs.Func("port", "TCP `port` to listen on", func(v string) error { f.set["server.port"] = v; return nil })
	fs.Func("set", "a `setting=value` such as server.shutdown_grace=30s; may be repeated", func(v string) error {
		for i := range len(v) {
			if v[i] == '=' {
				f.set[v[:i]] = v[i+1:]
				return nil
			}
		}
		return errors.New("must have the form setting=value")
	})
	return f
}

func (f *configFlags) load() (config.Config, []string, error) {
	return config.Load(config.Options{Environ: os.Environ(), File: *f.file, Flags: f.set})
}

func version(args []string, stdout, stderr io.Writer) int {
	if code, ok := parse(newFlags("version", "Prints the version, the compiler and the platform.", stderr), args, stderr); !ok {
		return code
	}
	v, revision := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	fmt.Fprintf(stdout, "letshare-server %s%s %s %s/%s\n", v, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}

func checkConfig(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("check-config", "Checks the configuration that serve would use.", stderr)
	flags := addConfigFlags(fs)
	connect := fs.Bool("connect", false, "also connect to Redis, and check that it will do")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	cfg, warnings, err := flags.load()
	for _, w := range warnings {
		fmt.Fprintln(stderr, "warning:", w)
	}
	if err == nil {
		err = tryBuilding(cfg)
	}
	if err == nil && *connect && cfg.Redis.Clustered() {
		err = tryRedis(cfg.Redis)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	fmt.Fprintln(stdout, "the configuration is good")
	return exitOK
}

// tryBuilding finds what only the parts of a server know, such as which keys are possible.
func tryBuilding(cfg config.Config) error {
	for file, check := range map[string]func(string) error{
		cfg.AppsFile(): directorymemory.CheckApps, cfg.RevocationsFile(): directorymemory.CheckRevocations, cfg.StatisticsFile(): stats.CheckFile,
	} {
		if file == "" {
			continue // nothing is kept
		}
		if err := check(file); err != nil {
			return err
		}
	}
	if _, err := server.RedisOptions(cfg.Redis); err != nil {
		return err
	}
	cfg.Redis.Addresses = nil // which New would connect to
	// Nothing can be written here, so that secrets which the server would make and keep are
	// made and forgotten: checking leaves nothing behind.
	cfg.DataDir = filepath.Join(os.DevNull, "nothing")
	secrets, err := resolveSecrets(cfg, nil)
	if err != nil {
		return err
	}
	_, err = server.New(cfg, secrets, slog.New(slog.DiscardHandler))
	return err
}

// tryRedis connects to Redis and changes nothing there.
func tryRedis(c config.Redis) error {
	ctx, cancel := context.WithTimeout(context.Background(), vaultTimeout)
	defer cancel()
	client, err := server.OpenRedis(ctx, c)
	if err == nil {
		client.Close()
	}
	return err
}

func defaultConfig(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("default-config", "Prints every setting with its default and what it means.", stderr)
	mode := fs.String("mode", os.Getenv("MODE"), "run `mode`: local or production")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	switch config.Mode(*mode) {
	case "":
		*mode = string(config.Local)
	case config.Local, config.Production:
	default:
		fmt.Fprintf(stderr, "-mode is %q: must be %s or %s\n", *mode, config.Local, config.Production)
		return exitUsage
	}
	fmt.Fprint(stdout, config.DefaultYAML(config.Mode(*mode)))
	return exitOK
}
