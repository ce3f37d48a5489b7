package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Options says where Load reads from.
type Options struct {
	Environ []string          // "NAME=value", as os.Environ gives it
	File    string            // the file, which must exist; empty means $MODE.yaml in Dir, if it is there
	Dir     string            // empty means "configs"
	Flags   map[string]string // values by setting, "server.port": "9000"; these win over all else
}

// Load reads the configuration from all its sources and checks it. Warnings are for the
// operator and hold nothing secret. Every fault that was found is in the error.
func Load(o Options) (c Config, warnings []string, err error) {
	env := environment(o.Environ)
	mode := Mode(env["MODE"])
	switch mode {
	case "":
		mode = Local
	case Local, Production:
	default:
		return Config{}, nil, fmt.Errorf("MODE is %q: must be %s or %s", mode, Local, Production)
	}

	name, text, err := o.read(mode)
	if err != nil {
		return Config{}, nil, err
	}
	warnings, unknown := unknownVariables(env)
	c = Default(mode)
	apply := func() error {
		return errors.Join(decodeYAML(name, text, &c), applyEnvironment(env, &c), applyFlags(o.Flags, &c))
	}
	if err := errors.Join(apply(), unknown); err != nil {
		return Config{}, warnings, err
	}
	if profile := c.Limits.Profile; profile != "" { // changes the defaults, and what is set wins over these
		c = Default(mode)
		c.Limits.Profile = profile
		c.Limits.adoptProfile()
		if err := apply(); err != nil {
			return Config{}, warnings, err
		}
	}
	return c, warnings, c.Check()
}

// read returns the file's name and text; both are empty if there is none.
func (o Options) read(mode Mode) (name string, text []byte, err error) {
	name = o.File
	if name == "" {
		dir := o.Dir
		if dir == "" {
			dir = "configs"
		}
		name = filepath.Join(dir, string(mode)+".yaml")
	}
	text, err = os.ReadFile(name)
	if o.File == "" && errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("read the configuration: %w", err)
	}
	return name, text, nil
}

// environment keeps the variables that are ours and are not empty.
func environment(environ []string) map[string]string {
	env := make(map[string]string)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if value != "" && (name == "MODE" || strings.HasPrefix(name, "LETSHARE_")) {
			env[name] = value
		}
	}
	return env
}

// injected matches the names of variables that Kubernetes and Docker set for services
// called letshare, letshare-server and the like.
var injected = regexp.MustCompile(`^LETSHARE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// isInjected reports whether a variable comes from Kubernetes, not from the operator.
func isInjected(name, value string) bool {
	scheme, _, isURL := strings.Cut(value, "://")
	return injected.MatchString(name) ||
		strings.HasSuffix(name, "_PORT") && isURL && (scheme == "tcp" || scheme == "udp" || scheme == "sctp")
}

// unknownVariables removes what Kubernetes injected from env, with one warning, and returns
// an error for what else is no setting.
func unknownVariables(env map[string]string) (warnings []string, err error) {
	known := []string{"MODE"}
	for _, s := range settings(&Config{}) {
		if name := s.env(); name != "" {
			known = append(known, name)
		}
	}
	var ignored, unknown []string
	for name, value := range env {
		if isInjected(name, value) {
			ignored = append(ignored, name)
			delete(env, name)
		} else if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(ignored)
	slices.Sort(unknown)
	if len(ignored) > 0 {
		warnings = append(warnings, "ignored variables that describe a service to its neighbours and configure nothing: "+
			strings.Join(ignored, ", "))
	}
	var errs []error
	for _, name := range unknown {
		errs = append(errs, fmt.Errorf("environment: unknown variable %s%s", name, nearest(name, known)))
	}
	return warnings, errors.Join(errs...)
}

func applyEnvironment(env map[string]string, c *Config) error {
	var errs []error
	for _, s := range settings(c) {
		name := s.env()
		value, set := env[name]
		if name == "" || !set {
			continue
		}
		if err := s.set(value); err != nil {
			errs = append(errs, fmt.Errorf("environment: %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func applyFlags(flags map[string]string, c *Config) error {
	left := make(map[string]bool, len(flags))
	for path := range flags {
		left[path] = true
	}
	var errs []error
	for _, s := range settings(c) {
		value, set := flags[s.path]
		if !set {
			continue
		}
		delete(left, s.path)
		if err := s.set(value); err != nil {
			errs = append(errs, fmt.Errorf("flag for %s: %w", s.path, err))
		}
	}
	for path := range left {
		errs = append(errs, fmt.Errorf("flag for unknown setting %s", path))
	}
	return errors.Join(errs...)
}
