// Package memory is the directory whose store is this process: connections and counts in
// memory, gone when the process ends. Apps that were made at run time, and revocations of tokens,
// stay if KeepApps and KeepRevocations name files for them.
//
// A Store holds them; Node gives one node access to it. A record of a connection costs
// some 170 bytes and has no timer: whoever looks at one whose deadline has passed finds
// nothing, and Run removes those that nobody looks at.
//
// A node that opens the Store again under its name, with another incarnation, has ended
// its earlier life: attachments that were counted for that life are counted no more.
//
// The package starts no goroutine and never calls back: a superseded node finds the notice
// in its channel.
package memory
