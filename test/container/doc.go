// Package container proves what the Dockerfile makes without a Docker engine: the same
// static binary, built with the Dockerfile's own command, in an otherwise empty root
// directory, as the Dockerfile's unprivileged user.
package container
