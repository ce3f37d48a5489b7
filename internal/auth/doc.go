// Package auth turns credentials into a Grant: what an authenticated party may do.
//
// Credentials are API keys ("appId.keyId:secret"), Ably JWTs signed with the secret of
// such a key, and LetShare JWTs signed with jwt.secret. An Authenticator checks the first
// two against a Registry of apps, LetShare checks the third. What comes out is the same for
// both: a *Grant with an app, an identity, a Capability and perhaps an end.
//
// The package knows no sockets and answers no requests: it reads headers and query values
// and returns errors that a client may see (*pubsub.Error). It does not decide what a
// channel operation needs; whoever performs one asks Grant.Ops or Grant.Allows.
//
// Everything runs on the caller's goroutine and is safe for concurrent use. Secrets and
// tokens are in no error text and in no log value.
package auth
