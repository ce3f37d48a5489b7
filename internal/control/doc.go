// Package control is the control API: apps, keys and namespaces while the server runs, at
// /v1 and /api/v1. Its paths, fields, statuses and errors are those of Ably's Control API, so
// that the tools made for that work here; see docs/admin.md for what there is of it.
//
// Requests carry an access token of the configuration. Without one there is no such API.
// Package apps keeps what is made; apps of the configuration can be read here, without their
// secrets, and not changed.
package control
