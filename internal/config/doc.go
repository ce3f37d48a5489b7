// Package config turns a file, the environment and flags into one checked Config.
//
// Every setting is a field of Config, where its default, meaning and unit stand. A later
// source wins over an earlier one: defaults, then the file (configs/$MODE.yaml, or the one
// that --config names), then environment variables, then flags. A setting's name in the
// environment is LETSHARE_ and its path in the file, upper case, with "_" for ".":
// server.shutdown_grace is LETSHARE_SERVER_SHUTDOWN_GRACE. Lists of plain values are
// separated by commas there; lists of objects (namespaces, apps) stand in the file only.
// An empty variable counts as none.
//
// Whatever is not known is an error that names the nearest known name, and so is a setting
// that does nothing yet. ResolveSecrets then decides which secrets and keys are used.
//
// The package knows files and environment, and nothing of what the settings configure.
package config
