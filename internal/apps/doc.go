// Package apps is the apps that are made at run time: their records in the directory, and
// this node's copy of them in the auth.Registry.
//
// A change is made to what was read, and recorded if nobody has changed the record meanwhile,
// else again; when it returns, this node goes by it. Other nodes get a notice, and read all
// records from time to time in case one was lost.
//
// The package knows no HTTP and does not look at requests; package control does. Methods run
// on the caller's goroutine, Run on its own, and all of them may be called at once.
package apps
