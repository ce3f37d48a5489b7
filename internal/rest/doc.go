// Package rest is the REST API of the Ably protocol (RSC, RSL): a door that turns requests
// into calls on the hub, in JSON or MessagePack as the client asks (RSC8a-b).
//
// Every answer, errors included, is in the format that the request's Accept header or
// format parameter asked for, with exactly that content type; only errors for browsers are
// always JSON. Requests run on net/http's goroutines.
package rest
